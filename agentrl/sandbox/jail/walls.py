"""What a worker asks of the walls around its runs. Two kinds: `namespaces` and `alone` (Landlock and seccomp only)."""

from __future__ import annotations

import resource
from typing import Protocol

from .order import Order


class Usage(Protocol):
    """What a run uses now: bytes of memory and seconds of processor time over all its processes."""

    memory: int
    cpu_s: float


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

    def leave(self) -> None:
        """In the worker, last: removes what it has on disk."""

    def usage(self, pids: list[int]) -> dict[int, tuple[int, float]]:
        """Memory in bytes and processor time in seconds of each run, by the pid of its first process."""


def set_limits(order: Order) -> None:
    """Limits of the kernel's for one process and its children. Hard limits too, so that none can be raised."""
    cpu = max(1, int(order.cpu_s + 0.999)) if order.cpu_s else resource.RLIM_INFINITY
    for name, value in (
        ("AS", order.address_bytes),
        ("CPU", cpu),
        ("FSIZE", order.disk_bytes),
        ("NOFILE", order.open_files),
        ("NPROC", order.processes),
        ("CORE", 1),  # none: 0 would still feed a core pattern that is a pipe
        ("MEMLOCK", 1 << 16),
        ("MSGQUEUE", 0),
        ("NICE", 0),
        ("RTPRIO", 0),
        ("SIGPENDING", 1024),
    ):
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard) if value >= 0 else hard
        over = value + 1 if name == "CPU" and value > 0 and hard == resource.RLIM_INFINITY else value
        resource.setrlimit(kind, (value, over))
