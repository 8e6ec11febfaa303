"""Processes that tests start: which there are, and which go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import psutil


def still_running(processes: Iterable[psutil.Process], within: float = 60) -> list[psutil.Process]:
    """Those that have not ended within so many seconds. One that waits for somebody to ask how it ended has ended."""
    limit = time.monotonic() + within
    left = list(processes)
    while (left := [p for p in left if not _ended(p)]) and time.monotonic() < limit:
        time.sleep(0.02)
    return left


def children() -> set[int]:
    """Processes below this one, but for Python's own resource tracker, which lives as long as its parent."""
    return {p.pid for p in psutil.Process().children(recursive=True) if "resource_tracker" not in _command(p)}


def left_since(before: set[int], within: float = 60) -> list[psutil.Process]:
    """Processes below this one that were not there `before` and have not ended within so many seconds."""
    return still_running(processes(children() - before), within)


def processes(pids: Iterable[int]) -> list[psutil.Process]:
    """Those of them that are there."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True
