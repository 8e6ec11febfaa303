"""Whose a container is, told by its name, so that those of pools that were killed can be found and removed.

A name holds the owner's number, when that process began, and the process namespace and the boot that the number belongs
to: another process of the same number, or one that cannot be seen from here, is not taken for the owner.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..starts import PREFIX
from .engine import Engine, containers, remove_container

LABEL = "sandbox-runner.owner"


def mark() -> str:
    """The beginning of the names of this process's containers."""
    return mark_of(os.getpid())


def mark_of(pid: int) -> str:
    """The same of another process."""
    return f"{PREFIX}{pid}-{_began(pid)}-{_here()}"


def is_left(name: str) -> bool:
    """Whether the owner of a container of this name was a process of here, and is no more."""
    words = name.removeprefix(PREFIX).split("-")
    if len(words) != 5 or not words[0].isdigit() or "-".join(words[2:4]) != _here():
        return False
    return _began(int(words[0])) != words[1]


def sweep(engine: Engine) -> list[str]:
    """Removes what killed pools have left; returns the names. Blocks."""
    left = [name for name in containers(engine, PREFIX) if is_left(name)]
    for name in left:
        remove_container(engine, name)
    return left


def _here() -> str:
    """This boot of this machine, and this process namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"


def _began(pid: int) -> str:
    """In the kernel's ticks since boot; empty if there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
