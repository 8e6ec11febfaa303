"""Landlock: which files a process may read and write, for itself and its children, for good. Needs no rights.

In: folders to read and folders to write. Out: nothing; the caller is confined. `abi()` says what the kernel knows: 0
is no Landlock, 4 adds TCP, 5 devices' ioctl, 6 keeps signals and abstract unix sockets inside.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from . import syscalls

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_BENEATH = 1
_READ = 0b1101  # execute, read_file, read_dir
_FILE = 0b111 | 1 << 14 | 1 << 15  # what can be granted on a single file: execute, write, read, truncate, ioctl
_ALL_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_LATEST_FILES = (1 << 16) - 1
_IOCTL_DEV = 1 << 15
_TCP = 0b11
_SCOPES = 0b11  # abstract unix sockets, signals


def abi() -> int:
    try:
        return syscalls.raw(_CREATE, None, 0, 1, what="landlock_create_ruleset")
    except OSError:
        return 0


def confine(version: int, read: Iterable[str], write: Iterable[str]) -> None:
    """Below `read` one may read and execute, below `write` everything but devices' ioctl; nowhere else anything.

    Paths that do not exist are left out. Raises OSError if the kernel refuses.
    """
    files = _ALL_FILES.get(version, _LATEST_FILES)
    words = [files] + ([_TCP] if version >= 4 else []) + ([_SCOPES] if version >= 6 else [])
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = syscalls.raw(_CREATE, attributes, len(attributes), 0, what="landlock_create_ruleset")
    for path in read:
        _allow(ruleset, path, files & _READ)
    for path in write:
        _allow(ruleset, path, files & ~_IOCTL_DEV)
    syscalls.raw(_RESTRICT, ruleset, 0, what="landlock_restrict_self")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= _FILE
    syscalls.raw(_ADD, ruleset, _BENEATH, struct.pack("=Qi", rights, fd), 0, what=f"landlock_add_rule {path}")
    os.close(fd)
