"""Removes a folder that a run has filled, however deep, locked or oddly named what it left there is.

In: a path, whose processes are gone. Out: nothing, and never an error. A tree is taken down by moving what stands two
levels down to the top: no path grows long, and nothing recurses.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from itertools import count

_MODE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove(folder: str) -> None:
    """Remove it with all that is in it; follows no link. What cannot be removed stays."""
    with suppress(OSError):
        os.chmod(folder, 0o700)
        top = os.open(folder, _MODE)
        try:
            _empty(top)
        finally:
            os.close(top)
    with suppress(OSError):
        os.rmdir(folder)


def _empty(top: int) -> None:
    numbers = count()
    kept: set[str] = set()  # what resists
    while names := [name for name in os.listdir(top) if name not in kept]:
        for name in names:
            try:
                if _is_folder(name, top):
                    _flatten(name, top, numbers)
                    os.rmdir(name, dir_fd=top)
                else:
                    os.unlink(name, dir_fd=top)
            except OSError:
                kept.add(name)


def _flatten(name: str, top: int, numbers: count[int]) -> None:
    """Empty one folder of `top`: its folders become folders of `top`."""
    within = _opened(name, top)
    try:
        for entry in os.listdir(within):
            if not _is_folder(entry, within):
                os.unlink(entry, dir_fd=within)
                continue
            os.close(_opened(entry, within))  # a folder that is moved must be writable itself
            while _there(free := f"{next(numbers)}", top):
                pass
            os.rename(entry, free, src_dir_fd=within, dst_dir_fd=top)
    finally:
        os.close(within)


def _opened(name: str, at: int) -> int:
    """A folder, with all rights for its owner."""
    os.chmod(name, 0o700, dir_fd=at)
    return os.open(name, _MODE, dir_fd=at)


def _is_folder(name: str, at: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)


def _there(name: str, at: int) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=at, follow_symlinks=False)
        return True
    return False
