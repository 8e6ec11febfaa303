"""Whose a container and its folder are, told by their names, so that those of pools that were killed can be removed.

A name holds the owner's number, when that process began, and a word for the boot and the process namespace that the
number belongs to: another process of the same number, or one that cannot be seen from here, is not taken for the owner.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ..jail.removal import remove
from ..starts import PREFIX
from .engine import Engine, containers, remove_container

LABEL = "sandbox-runner.owner"
FOLDER = "sandbox-container-"


def mark(pid: int | None = None) -> str:
    """Of this process, or another one: what stands in the names of its containers and folders."""
    pid = pid or os.getpid()
    return f"{pid}-{_began(pid)}-{_here()}"


def is_left(name: str) -> bool:
    """Whether the owner of a container or folder of this name was a process of here, and is no more."""
    words = name.removeprefix(PREFIX).removeprefix(FOLDER).split("-")
    if len(words) != 4 or not words[0].isdigit() or words[2] != _here():
        return False
    return _began(int(words[0])) != words[1]


def sweep(engine: Engine) -> list[str]:
    """Removes containers that killed pools have left; returns their names. Blocks."""
    left = [name for name in containers(engine, PREFIX) if is_left(name)]
    for name in left:
        remove_container(engine, name)
    return left


def new_folder() -> str:
    """The path of a new one for a container's socket, when those that killed pools have left are gone."""
    for folder in Path(tempfile.gettempdir()).glob(FOLDER + "*"):
        with suppress(OSError):
            if is_left(folder.name) and folder.stat().st_uid == os.geteuid():
                remove(str(folder))
    return tempfile.mkdtemp(prefix=f"{FOLDER}{mark()}-")


def _here() -> str:
    """This boot of this machine, and this process namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return hashlib.sha256(f"{boot} {os.stat('/proc/self/ns/pid').st_ino}".encode()).hexdigest()[:8]


def _began(pid: int) -> str:
    """In the kernel's ticks since boot; empty if there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
