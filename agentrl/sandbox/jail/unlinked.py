"""Files that have no name any more and still take room, because a process holds them.

In: a /proc, a process and the folder in which alone it may write. Out: how much they take. Descriptors that travel in
sockets are seen by nobody, so such a process must not be able to send any.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

_GONE = b" (deleted)"


def held_by(proc: int, pid: int, folder: str) -> tuple[int, int] | None:
    """(bytes, number) of them. None if there is one that is mapped and not open: its size cannot be known.

    `proc`: descriptor of a /proc. Each thread is looked at: it may have a table of descriptors of its own, and the
    first thread may have left the others. What is not on the folder's file system is not the run's, such as its input.
    """
    with suppress(OSError):
        device = os.stat(folder).st_dev
        return _held_by(proc, pid, folder, device)
    return 0, 0


def _held_by(proc: int, pid: int, folder: str, device: int) -> tuple[int, int] | None:
    found: dict[int, int] = {}
    mapped: set[int] = set()
    for thread in _names(proc, f"{pid}/task"):
        for fd in _names(proc, place := f"{pid}/task/{thread}/fd"):
            with suppress(OSError):
                status = os.stat(f"{place}/{fd}", dir_fd=proc)
                if not status.st_nlink and status.st_dev == device:
                    found[status.st_ino] = status.st_blocks * 512
        if not mapped:  # memory is the same for all
            mapped = set(_mapped(proc, f"{pid}/task/{thread}/maps", os.fsencode(folder) + b"/"))
    if mapped - set(found):
        return None
    return sum(found.values()), len(found)


def _mapped(proc: int, maps: str, below: bytes) -> Iterator[int]:
    """Inode numbers of nameless files that were below the folder."""
    with suppress(OSError), open(os.open(maps, os.O_RDONLY, dir_fd=proc), "rb") as lines:
        for line in lines:
            *_, number, path = line.split(None, 5) if line.count(b" ") > 5 else (b"", b"0", b"")
            if path.startswith(below) and path.rstrip(b"\n").endswith(_GONE):
                yield int(number)


def _names(proc: int, folder: str) -> list[str]:
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)
    return []
