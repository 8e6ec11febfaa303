"""The processes that a run's tools and environments started and did not end.

What comes in: which processes there were before. What goes out: the others are told to end, whole trees of them: a tool
that waited for a process when its run was stopped cannot see to it any more. On Linux; elsewhere it does nothing. Knows
no tool and no engine.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


def descendants() -> tuple[int, ...]:
    """The processes below this one, parents before their children."""
    found = [os.getpid()]
    for pid in found:
        with suppress(OSError):  # it has ended meanwhile
            for listed in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(below) for below in listed.read_text().split()]
    return tuple(found[1:])


def end_descendants(spared: Collection[int]) -> None:
    """Tell the processes below this one to end, all but `spared`."""
    for pid in descendants():
        if pid not in spared:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)
