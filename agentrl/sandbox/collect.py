"""Taking result files out of a run's folder, of which nothing can be trusted: not names, types or sizes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from .result import OURS

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def collect(folder: int | None, names: Iterable[str], cap: int) -> tuple[dict[str, bytes], bool]:
    """The regular files among `names` below the directory descriptor `folder`, and whether one was left out for size.

    Links, pipes, devices and folders are no files here. `cap` bytes is for all together; nothing is returned in part.
    Raises OSError if this process cannot look, which says nothing about the files.
    """
    if folder is None:
        raise OSError(errno.EMFILE, "this process had no descriptor left for their folder")
    found: dict[str, bytes] = {}
    left_out = False
    for name in names:
        with ExitStack() as opened, _not_there():
            file = _open(folder, name.split("/"), opened)
            if file is None:
                continue
            content = _up_to(file, cap + 1)
            if len(content) > cap:
                left_out = True
            else:
                found[name] = content
                cap -= len(content)
    return found, left_out


@contextmanager
def _not_there() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in OURS:
            raise


def _open(folder: int, parts: list[str], opened: ExitStack) -> int | None:
    """A descriptor of the regular file, or None if it is something else. Raises OSError if it cannot be reached."""
    for part in parts[:-1]:
        folder = _keep(os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=folder), opened)
    file = _keep(os.open(parts[-1], _FLAGS, dir_fd=folder), opened)
    return file if stat.S_ISREG(os.fstat(file).st_mode) else None


def _keep(fd: int, opened: ExitStack) -> int:
    opened.callback(os.close, fd)
    return fd


def _up_to(fd: int, size: int) -> bytes:
    parts = []
    while size and (part := os.read(fd, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
