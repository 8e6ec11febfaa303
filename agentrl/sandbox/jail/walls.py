"""What a worker asks of the walls around its runs, and a run's first process of the walls that it puts up itself.

Kinds: `namespaces`, `alone` (Landlock and seccomp only) and `none` fork and enclose themselves; `bubblewrap` starts
another program that does it.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from .crowd import Crowd
from .order import Order

_MOST = 1 << 62  # that can be handed to the kernel
_MOST_S = 1 << 30  # of processor time, which the kernel counts in nanoseconds


class Walls(Protocol):
    features: dict[str, object]  # what this machine gave, for the probe and for people
    crowd: Crowd | None  # tells how busy others keep the machine, where that can be seen

    def prepare(self) -> None:
        """Once, in the worker, before it serves. Raises OSError with the step that the machine refuses."""

    def start(self, order: Order, descriptors: list[int]) -> Birth:
        """Begins a run, which goes on by itself as `child.become` does; the descriptors stay the caller's.

        Raises OSError if it cannot begin.
        """

    def tidy(self, order: Order) -> None:
        """In the worker, when the run has ended: removes what it may have left."""

    def unbegun(self, pid: int, watch: int) -> bool:
        """Whether the program of a run is known not to have begun: its last wall does not stand. `watch`: its pidfd."""

    def overfull(self, order: Order, pid: int) -> bool:
        """Whether the run has more on disk than it may, where nothing else prevents that. `pid`: its first process."""

    def leave(self) -> None:
        """In the worker, last: removes what it has on disk."""

    def usage(self, runs: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        """Memory in bytes and processor time in seconds of each run, by the pid of its first process, as far as they
        can be known here. `runs`: pidfds by pid.
        """


class Enclosure(Protocol):
    """Walls that a run's first process puts up around itself."""

    def fork(self) -> int:
        """As `os.fork`, for that process."""

    def enclose(self, order: Order) -> str:
        """In it: puts all walls up but the filter of system calls, for good. Returns the run's folder."""

    def shut(self) -> None:
        """In it, last: installs the filter of system calls."""


class Greeting(Protocol):
    """Where a run's first process makes itself known that this worker has not forked itself."""

    def fileno(self) -> int:
        """Can be read when it does, or when there is nothing more to come."""

    def adopt(self) -> int:
        """Makes it a child of this process in place of the one that was started, lets it go on, and returns its number.
        Raises OSError if it has ended; then the one that was started has, or will.
        """

    def refuse(self) -> None:
        """It ends, and so does the one that was started."""


@dataclass(frozen=True)
class Birth:
    """`pid`: of the process to wait for; if there is a greeting, until another one can be adopted in its place."""

    pid: int
    greeting: Greeting | None = None


def set_common_limits() -> None:
    """In the worker, for itself and all runs: what no order changes."""
    for name, value in (
        ("CORE", 1),  # none: 0 would still feed a core pattern that is a pipe
        ("MEMLOCK", 1 << 16),
        ("MSGQUEUE", 0),
        ("NICE", 0),
        ("RTPRIO", 0),
        ("SIGPENDING", 1024),
    ):
        with suppress(ValueError):  # gVisor lets nobody set some of them, and has nothing that they would limit
            _set(getattr(resource, f"RLIMIT_{name}"), value)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for all runs under way; each has its own limit


def set_limits(order: Order) -> None:
    """In a run: the kernel's limits for each of its processes. Hard limits too, so that none can be raised.

    Without that of descriptors (`limit_descriptors`): the worker's own are still open, and as many as it has runs.
    """
    _set(resource.RLIMIT_AS, order.address_bytes)
    _set(resource.RLIMIT_FSIZE, order.disk_bytes)
    _set(resource.RLIMIT_NPROC, order.processes)
    if order.cpu_s and order.mode != "cells":  # of which each cell may use so much
        seconds = math.ceil(min(order.cpu_s, _MOST_S))
        _set(resource.RLIMIT_CPU, seconds, grace=1)  # a signal first, and a second later the end


def limit_descriptors(order: Order) -> None:
    """In a run, last, when it has no descriptors but its own."""
    _set(resource.RLIMIT_NOFILE, order.open_files)


def _set(kind: int, value: int, grace: int = 0) -> None:
    value = min(value, _MOST)
    hard = resource.getrlimit(kind)[1]
    most = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(kind, (min(value, most), most))
