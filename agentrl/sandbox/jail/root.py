"""Builds the root that runs live in: the system's programs and the interpreter, read-only, and nothing else of the
machine.

Called once by a worker in its own mount namespace; afterwards the machine's own files are out of reach for good.
"""

from __future__ import annotations

import os

from . import syscalls as sc
from .trees import SYSTEM

DEVICES = ("null", "zero", "full", "random", "urandom")
STREAMS = {"fd": "/proc/self/fd", **{f"std{n}": f"/proc/self/fd/{i}" for i, n in enumerate(("in", "out", "err"))}}
_ETC = {
    "passwd": "root:x:0:0:root:/:/bin/sh\nrunner:x:1000:1000:runner:/work:/bin/sh\n",
    "group": "root:x:0:\nrunner:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
    "hostname": "sandbox\n",
}
_COPIED = ("/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types")


def build(places: list[tuple[str, str]]) -> bool:
    """Makes the root and enters it. `places`: (outside, inside) of further folders. True if /proc could be mounted.

    Raises OSError with the step that this machine refuses.
    """
    sc.mount("", "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    sources = {inside: os.open(outside, os.O_PATH) for outside, inside in [*system_folders(), *places]}
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in DEVICES}
    sc.mount("tmpfs", "/tmp", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755,size=4m,nr_inodes=4096")
    for inside, fd in sources.items():
        _show(fd, "/tmp" + inside)
    _fill("/tmp")
    for name, fd in devices.items():
        open(f"/tmp/dev/{name}", "w").close()
        sc.mount(f"/proc/self/fd/{fd}", f"/tmp/dev/{name}", flags=sc.MS_BIND)
    has_proc = _own_proc()
    os.chdir("/tmp")
    sc.pivot_root_here()
    for fd in (*sources.values(), *devices.values()):
        os.close(fd)
    sc.mount("", "/", flags=sc.MS_REMOUNT | sc.MS_BIND | sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NODEV)
    return has_proc


def system_folders() -> list[tuple[str, str]]:
    """(outside, inside) of those that are no links."""
    return [(name, name) for name in SYSTEM if os.path.isdir(name) and not os.path.islink(name)]


def system_links() -> dict[str, str]:
    """Where each name of the system leads that is a link."""
    return {name: os.readlink(name) for name in SYSTEM if os.path.islink(name)}


def fill_etc(folder: str) -> None:
    """Makes the files of an /etc of a machine that has nothing in it."""
    for name, text in _ETC.items():
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
    for path in _COPIED:
        if (content := _content(path)) is not None:
            with open(f"{folder}/{os.path.basename(path)}", "wb") as copy:
                copy.write(content)


def _show(fd: int, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    sc.mount(f"/proc/self/fd/{fd}", target, flags=sc.MS_BIND | sc.MS_REC)
    sc.seal_mounts(target)


def _fill(root: str) -> None:
    for name in ("dev/shm", "etc", "proc", "sys", "tmp", "work", "box", "root", "var"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    for name, target in system_links().items():
        os.symlink(target, root + name)
    fill_etc(f"{root}/etc")
    for name, target in STREAMS.items():
        os.symlink(target, f"{root}/dev/{name}")
    os.symlink("/tmp", f"{root}/var/tmp")


def _own_proc() -> bool:
    """A /proc of the worker's own process namespace: what runs must have seen to be allowed one of theirs."""
    try:
        sc.mount("proc", "/tmp/proc", "proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    except OSError:
        return False  # the machine's own /proc has parts covered, as in many containers
    return True


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return None
