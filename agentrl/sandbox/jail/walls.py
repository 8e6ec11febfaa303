"""What a worker asks of the walls around its runs. Two kinds: `namespaces` and `alone` (Landlock and seccomp only)."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from typing import Protocol

from .order import Order

_MOST = 1 << 62  # that can be handed to the kernel
_MOST_S = 1 << 30  # of processor time, which the kernel counts in nanoseconds


class Walls(Protocol):
    features: dict[str, object]  # what this machine gave, for the probe and for people

    def prepare(self) -> None:
        """Once, in the worker, before it serves. Raises OSError with the step that the machine refuses."""

    def fork(self) -> int:
        """As `os.fork`, for the first process of a run."""

    def enclose(self, order: Order) -> str:
        """In that process: puts all walls up but the filter of system calls, for good. Returns the run's folder."""

    def shut(self) -> None:
        """In that process, last: installs the filter of system calls."""

    def tidy(self, order: Order) -> None:
        """In the worker, when the run has ended: removes what it may have left."""

    def overfull(self, order: Order) -> bool:
        """Whether the run has more on disk than it may, where nothing else prevents that."""

    def leave(self) -> None:
        """In the worker, last: removes what it has on disk."""

    def usage(self, runs: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        """Memory in bytes and processor time in seconds of each run, by the pid of its first process, as far as they
        can be known here. `runs`: pidfds by pid.
        """


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
        _set(getattr(resource, f"RLIMIT_{name}"), value)


def set_limits(order: Order) -> None:
    """In a run: the kernel's limits for each of its processes. Hard limits too, so that none can be raised."""
    _set(resource.RLIMIT_AS, order.address_bytes)
    _set(resource.RLIMIT_FSIZE, order.disk_bytes)
    _set(resource.RLIMIT_NOFILE, order.open_files)
    _set(resource.RLIMIT_NPROC, order.processes)
    if order.cpu_s and order.mode != "cells":  # of which each cell may use so much
        seconds = math.ceil(min(order.cpu_s, _MOST_S))
        _set(resource.RLIMIT_CPU, seconds, grace=1)  # a signal first, and a second later the end


def _set(kind: int, value: int, grace: int = 0) -> None:
    value = min(value, _MOST)
    hard = resource.getrlimit(kind)[1]
    most = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(kind, (min(value, most), most))
