"""Walls of namespaces: a run sees its own processes, files, users and an empty network, and nothing else exists for it.

The worker itself lives in namespaces that it owns (`enter`); each run gets its own process, mount and user namespace
inside. Needs no rights, only a kernel and a container that allow user namespaces.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from . import landlock, root, seccomp, trees
from . import syscalls as sc
from .child import forked
from .crowd import Crowd
from .order import Order
from .policy import with_branches, with_namespaces
from .processes import ProcessTable
from .walls import Birth, set_limits

_OWN_FOLDERS = 4  # of ours among a run's files
RUN_ID = 1000  # user and group of a run, as it sees itself
OUTER_IDS = (1_879_000_000, 64_999)  # who that is outside when root starts the pool: nobody who owns anything
FOLDERS = ("/work", "/tmp", "/dev/shm")
_ALL = sc.CLONE_NEWUSER | sc.CLONE_NEWPID | sc.CLONE_NEWNS | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS | sc.CLONE_NEWNET


class Namespaces:
    def __init__(self, keep: Callable[[list[int], Namespaces], NoReturn]) -> None:
        """`keep`: what becomes of a new process that is to keep a session and its forks."""
        self._keep = keep
        self.features: dict[str, object] = {}
        self.writable = [*FOLDERS, "/dev/null"]  # what Landlock lets a run write to
        self._landlock = landlock.abi()
        self.proc = self._pid_namespace = -1
        self._table: ProcessTable | None = None
        self.crowd: Crowd | None = None

    def prepare(self) -> None:
        """The worker is in its namespaces already, as their first process."""
        self.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self.crowd = Crowd(self.proc)
        places = trees.inside_names(trees.python_folders())
        has_proc = root.build(places)
        trees.move_interpreter(places)
        self._pid_namespace = os.open("self/ns/pid", os.O_RDONLY, dir_fd=self.proc)
        if has_proc:  # which has the runs alone; that of outside would have to be searched for them
            self._table = ProcessTable(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY))
        else:
            self._table = ProcessTable(self.proc)
        self._filter = sc.Filter(seccomp.build(with_namespaces(unix_sockets=self._landlock >= 6)))
        self.branch_filter = sc.Filter(seccomp.build(with_branches(unix_sockets=self._landlock >= 6)))
        self.features = {"landlock": self._landlock, "proc": has_proc, "root": os.getuid() == 0, "forks": has_proc}

    def start(self, order: Order, descriptors: list[int]) -> Birth:
        if order.mode == "keeper":
            return forked(order, descriptors, self, lambda: self._keep(descriptors, self))
        return forked(order, descriptors, self)

    def fork(self) -> int:
        sc.unshare(sc.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:  # a process makes one process namespace only, unless it first goes back to its own
                sc.setns(self._pid_namespace, sc.CLONE_NEWPID)
        return pid

    def enclose(self, order: Order) -> str:
        sc.unshare(sc.CLONE_NEWNS)
        make_folders(order)
        if self.features["proc"]:
            mount_proc(sc.MS_RDONLY, "subset=pid")
        if os.getuid() != RUN_ID:
            os.setgroups([])
            os.setresgid(RUN_ID, RUN_ID, RUN_ID)
            os.setresuid(RUN_ID, RUN_ID, RUN_ID)
            sc.allow_own_proc()
        sc.unshare(sc.CLONE_NEWUSER)  # so that its processes are counted apart from those of other runs
        for name, text in (("setgroups", "deny"), ("uid_map", SAME), ("gid_map", SAME)):
            _write(os.open(f"self/{name}", os.O_WRONLY, dir_fd=self.proc), text)
        set_limits(order)
        sc.no_new_privileges()
        sc.drop_capabilities()
        sc.allow_own_proc()
        if self._landlock:
            landlock.confine(self._landlock, ("/",), self.writable)
        return "/work"

    def shut(self) -> None:
        self._filter.install()

    def tidy(self, order: Order) -> None:
        """All that a run had is gone with its namespaces."""

    def unbegun(self, pid: int, watch: int) -> bool:
        return self._table is not None and self._table.unfiltered(self._table.number_of(watch))

    def overfull(self, order: Order, pid: int) -> bool:
        return False  # its file system has just that size

    def leave(self) -> None:
        """It has nothing on disk."""

    def usage(self, runs: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        return self._table.usage(runs) if self._table else {}


SAME = f"{RUN_ID} {RUN_ID} 1"  # a map of ids in which a run is who it is outside


def make_folders(order: Order) -> None:
    """In a mount namespace of its own: /work, /tmp and /dev/shm, new and empty, in a file system of the run's size."""
    caps = f"size={order.disk_bytes},nr_inodes={order.files + _OWN_FOLDERS},mode=755,uid={RUN_ID},gid={RUN_ID}"
    sc.mount("tmpfs", "/box", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, caps)
    for target in FOLDERS:
        name = f"/box/{os.path.basename(target)}"
        os.mkdir(name, 0o700)
        os.chown(name, RUN_ID, RUN_ID)
        sc.mount(name, target, flags=sc.MS_BIND)


def mount_proc(flags: int = 0, options: str = "") -> None:
    """Of the process namespace that this process is in."""
    sc.mount("proc", "/proc", "proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC | flags, options)


def enter(then: Callable[[int], NoReturn]) -> NoReturn:
    """Runs `then` as first process of new namespaces; this process stays outside and ends when it has ended.

    `then` gets a descriptor that reads end-of-file when this process has died. Raises OSError where the kernel refuses.
    """
    sc.adopt_orphans()
    alive, hold = os.pipe()
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        _between(ready, go, alive, then)
    os.close(ready[1])
    os.close(go[0])
    refused = os.read(ready[0], 4096)
    if refused != b"+":
        os.waitpid(pid, 0)
        raise OSError(refused.decode() or "the process that should enter the namespaces died")
    _map_ids(pid)
    os.write(go[1], b"+")
    raise SystemExit(_wait_for_all())


def _between(ready: tuple[int, int], go: tuple[int, int], alive: int, then: Callable[[int], NoReturn]) -> NoReturn:
    """Only its children are in the new process namespace, so it makes one and goes."""
    try:
        os.close(go[1])
        if os.geteuid() == 0:
            with suppress(OSError):
                os.setgroups([])
        sc.unshare(_ALL)
    except OSError as error:
        os.write(ready[1], str(error).encode())
        os._exit(1)
    os.write(ready[1], b"+")
    if os.read(go[0], 1) == b"+" and os.fork() == 0:
        for fd in (*ready, go[0]):
            os.close(fd)
        with suppress(BaseException):
            then(alive)
    os._exit(0)


def _map_ids(pid: int) -> None:
    """Root outside becomes root inside, and the runs a user of their own; anybody else is the runs' user."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        for outer in OUTER_IDS:
            with suppress(OSError):
                for name in ("gid_map", "uid_map"):
                    _write(os.open(f"/proc/{pid}/{name}", os.O_WRONLY), f"0 0 1\n{RUN_ID} {outer} 1\n")
                return
    _write(os.open(f"/proc/{pid}/setgroups", os.O_WRONLY), "deny")
    _write(os.open(f"/proc/{pid}/gid_map", os.O_WRONLY), f"{RUN_ID} {group} 1\n")
    _write(os.open(f"/proc/{pid}/uid_map", os.O_WRONLY), f"{RUN_ID} {user} 1\n")


def _write(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _wait_for_all() -> int:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return 0
