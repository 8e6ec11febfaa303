"""From the facts of a run's end to a status. Nothing that the run itself said has a part in it."""

from __future__ import annotations

import signal

from .jail.order import Ending
from .jail.program import MEMORY_EXIT
from .limits import Limits
from .result import Status


def judge(ending: Ending, limits: Limits, *, overflowed: bool) -> tuple[Status, str]:
    """(status, sentence). `overflowed`: more was written than may be."""
    if overflowed:
        return "output_limit", f"more than {limits.output_bytes} bytes on stdout or stderr"
    if ending.killed == "crowded":
        waited = f"it waited {ending.waited_s:.1f} of {ending.wall_s:.1f} s for a processor"
        return "infra_error", f"the machine was too busy: {waited}"
    if ending.killed:
        return _KILLED.get(ending.killed, ("infra_error", f"ended by the pool: {ending.killed}"))
    if ending.signal is not None:
        return _by_signal(ending, limits)
    if ending.exit_code == MEMORY_EXIT:
        return "memory", "MemoryError: the limit of one process's address space"
    if ending.exit_code:
        return "error", f"exit code {ending.exit_code}"
    return "ok", ""


_KILLED: dict[str, tuple[Status, str]] = {
    "wall": ("timeout", "wall-clock limit"),
    "cpu": ("timeout", "processor time limit"),
    "memory": ("memory", "memory limit of the whole run"),
    "disk": ("error", "disk limit of the whole run"),
}


def _by_signal(ending: Ending, limits: Limits) -> tuple[Status, str]:
    number = ending.signal or 0
    name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
    if number == signal.SIGXCPU or (number == signal.SIGKILL and ending.cpu_s >= 0.9 * limits.cpu_s):
        return "timeout", "processor time limit"
    if number == signal.SIGKILL and 2 * max(ending.max_rss, ending.peak_memory) >= limits.memory_bytes:
        return "memory", "killed by the machine, which had no memory left"
    return "signal", f"died of {name}"
