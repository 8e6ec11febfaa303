"""Walls without namespaces, for containers that forbid them: Landlock for files, a stricter filter for everything else.

A run is one process: it may start threads, but no process and no program, since leftovers could not be killed surely.
It has no sockets but pairs of its own, may signal only itself, and works in a folder of its own, which is looked at.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress

from . import landlock, seccomp, trees
from . import syscalls as sc
from .child import forked
from .crowd import Crowd
from .disk import exceeds
from .order import Order
from .policy import without_namespaces
from .processes import ProcessTable
from .removal import remove
from .unlinked import held_by
from .walls import Birth, set_limits

_NOBODY = 1_879_000_000  # who a run is when root starts the pool and this user can reach the interpreter
_ANY_PID = 0x7FEDCBA9  # in the filter as it is built; no process has this number
_ROOM = 1 << 16  # bytes for what the file system itself needs
_ETC = ("/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/mime.types")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Alone:
    def __init__(self, base: str) -> None:
        """`base`: an absolute path of a folder of mode 0700 that is the pool's own."""
        self.features: dict[str, object] = {}
        self._base = base
        self._version = landlock.abi()
        self._read: list[str] = []
        self._user: int | None = None
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self._table = ProcessTable(self._proc) if os.path.isdir("/proc/self") else None
        self.crowd = Crowd(self._proc) if self._table else None

    def prepare(self) -> None:
        if not self._version:
            raise OSError("this kernel has no Landlock (Linux 5.13 or newer, with landlock among its active LSMs)")
        if not seccomp.supported():
            raise OSError("the filter of system calls does not know this machine's architecture")
        folders = trees.python_folders()
        self._read = [*trees.SYSTEM, *folders, *_ETC, *_DEVICES]
        sys.path[:] = [path for path in sys.path if any(path.startswith(seen) for seen in (*trees.SYSTEM, *folders))]
        if os.geteuid() == 0 and reachable_for(_NOBODY):
            self._user = _NOBODY
            os.chmod(self._base, 0o711)
        self._filter = sc.Filter(seccomp.build(without_namespaces(_ANY_PID)), _ANY_PID)
        self.features = {
            "landlock": self._version,
            "own_user": self._user is not None,
            "watched": self._table is not None,
        }

    def start(self, order: Order, descriptors: list[int]) -> Birth:
        return forked(order, descriptors, self)

    def fork(self) -> int:
        return os.fork()

    def enclose(self, order: Order) -> str:
        sc.die_with_parent(signal.SIGKILL)
        folder = f"{self._base}/{order.name}"
        os.mkdir(folder, 0o700)
        if self._user is not None:
            os.chown(folder, self._user, self._user)
            os.setgroups([])
            os.setresgid(self._user, self._user, self._user)
            os.setresuid(self._user, self._user, self._user)
            sc.die_with_parent(signal.SIGKILL)  # a change of user takes it away
        set_limits(order)
        sc.no_new_privileges()
        sc.drop_capabilities()
        os.environ.update(HOME=folder, TMPDIR=folder)
        landlock.confine(self._version, (*self._read, "/proc/self"), (folder, "/dev/null"))
        return folder

    def shut(self) -> None:
        self._filter.fill(os.getpid())
        self._filter.install()

    def tidy(self, order: Order) -> None:
        remove(f"{self._base}/{order.name}")

    def unbegun(self, pid: int, watch: int) -> bool:
        return self._table is not None and self._table.unfiltered(pid)

    def overfull(self, order: Order, pid: int) -> bool:
        folder = f"{self._base}/{order.name}"
        held = held_by(self._proc, pid, folder) if self._table else (0, 0)
        most = order.disk_bytes + order.disk_bytes // 64 + _ROOM  # that one file has all of it is no fault
        return held is None or exceeds(folder, most - held[0], order.files - held[1])

    def leave(self) -> None:
        remove(self._base)

    def usage(self, runs: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        return {pid: self._table.usage_of_one(pid) for pid in runs} if self._table else {}


def reachable_for(user: int) -> bool:
    """Whether that user could still import from the standard library, tried in a child."""
    pid = os.fork()
    if pid == 0:
        reachable = False
        with suppress(OSError):
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            reachable = os.access(os.path.realpath(os.__file__), os.R_OK)
        os._exit(0 if reachable else 1)
    return os.waitpid(pid, 0)[1] == 0
