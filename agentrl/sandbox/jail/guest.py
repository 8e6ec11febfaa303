"""Walls of a run in a gVisor sandbox, where the worker is root over a kernel that is not the machine's.

That kernel knows no Landlock, and not every one of them mounts for one process alone, so runs are kept apart by users:
each has one of its own, a process namespace, and a sized file system that only this user may enter. No other folder can
be written to, and there is no /proc and no socket. Its network and its files are those of the sandbox: none of the
machine's but the system's programs and the interpreter, read-only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from . import ends, seccomp
from . import syscalls as sc
from .child import forked
from .crowd import Crowd
from .order import Order
from .policy import with_namespaces
from .processes import ProcessTable
from .walls import Birth, set_limits

_USERS, _FIRST_USER = 50_000, 10_000
_WRITABLE = ("/tmp", "/dev/shm", "/dev/mqueue")  # for everybody, as they come
_DEVICES = ("/dev/fuse", "/dev/net/tun", "/dev/tty", "/dev/ptmx")


class Guest:
    def __init__(self, base: str) -> None:
        """`base`: a folder of the sandbox in which each run gets its file system."""
        self.features: dict[str, object] = {}
        self.crowd: Crowd | None = None  # what others do outside cannot be seen here
        self._base = base

    def prepare(self) -> None:
        self._table = ProcessTable(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY))
        for name in ("/proc", "/sys"):  # gVisor's /proc lets users open what others of them have open
            sc.unmount_lazily(name)
        os.chmod(self._base, 0o711)
        for name in _WRITABLE:
            with suppress(OSError):
                os.chmod(name, 0o755)
        for name in _DEVICES:
            with suppress(OSError):
                os.chmod(name, 0o600)
        rules = with_namespaces(unix_sockets=False) | {"setpriority": None}  # its kernel asks nobody for a right to it
        self._filter = sc.Filter(seccomp.build(rules))
        self.features = {"landlock": 0, "proc": False, "kernel": os.uname().release}

    def start(self, order: Order, descriptors: list[int]) -> Birth:
        return forked(order, descriptors, self)

    def fork(self) -> int:
        """The process that the worker waits for makes the run's namespace, and ends as its first process does."""
        heard, held = os.pipe()
        pid = os.fork()
        if pid:
            os.close(held)
            ends.know(pid, heard)
            return pid
        first = -1

        def pass_on(number: int, _: object) -> None:
            if first > 0:
                os.kill(first, number)

        signal.signal(signal.SIGINT, pass_on)
        try:
            sc.unshare(sc.CLONE_NEWPID)
            first = os.fork()
        except OSError:
            os._exit(1)
        if first:
            _wait_and_end_as(first, held)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sc.die_with_parent(signal.SIGKILL)
        os.close(held)
        os.close(heard)
        return 0

    def enclose(self, order: Order) -> str:
        folder = f"{self._base}/{order.name}"
        user = _FIRST_USER + int(order.name.rpartition("-")[2]) % _USERS
        os.mkdir(folder, 0o700)
        sc.mount("tmpfs", folder, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, f"size={order.disk_bytes},mode=700")
        os.chown(folder, user, user)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        sc.die_with_parent(signal.SIGKILL)  # a change of user takes it away
        set_limits(order)
        sc.no_new_privileges()
        sc.drop_capabilities()
        os.environ.update(HOME=folder, TMPDIR=folder)
        return folder

    def shut(self) -> None:
        self._filter.install()

    def tidy(self, order: Order) -> None:
        folder = f"{self._base}/{order.name}"
        with suppress(OSError):
            sc.unmount_lazily(folder)
        with suppress(OSError):
            os.rmdir(folder)

    def unbegun(self, pid: int, watch: int) -> bool:
        return False  # nobody can tell here

    def overfull(self, order: Order, pid: int) -> bool:
        return False  # its file system has just that size

    def leave(self) -> None:
        """All that it has goes with the sandbox."""

    def usage(self, runs: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        return self._table.sums({pid: pid for pid in runs})


def _wait_and_end_as(first: int, held: int) -> NoReturn:
    """It holds nothing but `held`, the end of which tells the worker of its own."""
    os.closerange(0, held)
    os.closerange(held + 1, 1 << 16)
    _, status = os.waitpid(first, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
