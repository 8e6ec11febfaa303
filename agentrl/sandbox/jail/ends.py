"""Descriptors that can be read when a child has ended: the kernel's, or pipes where the kernel has none.

In: numbers of children. Out: descriptors, which become the caller's.
"""

from __future__ import annotations

import os

_PIPES: dict[int, int] = {}  # by number of a child that is not watched yet


def know(pid: int, heard: int) -> None:
    """`heard` reads end-of-file when that child has ended, since it alone holds the other end."""
    _PIPES[pid] = heard


def watch(pid: int) -> int:
    return _PIPES.pop(pid) if pid in _PIPES else os.pidfd_open(pid)
