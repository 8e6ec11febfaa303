"""The walls of a session and its forks, from its keeper: who belongs to which of them, and what a new one needs.

The keeper is the first process of the family's process namespace. Each member has mount and user namespaces of its
own, which its processes can neither leave nor change: they tell whose a process is, whatever its parents did.
In: members' first processes. Out: what they use, and their ends.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import stat
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

from . import syscalls as sc
from .child import forked
from .crowd import Crowd
from .namespaces import FOLDERS, RUN_ID, SAME, Namespaces, make_folders, mount_proc
from .order import Order
from .processes import ProcessTable
from .walls import Birth

_FURNISH_S = 10.0  # for a branch's folders to be copied
_SWEEP_S = 2.0  # for killed processes to be gone
_NO_RIGHTS = {b"CapInh:", b"CapPrm:", b"CapEff:", b"CapAmb:"}


class Family:
    def __init__(self, walls: Namespaces) -> None:
        self.features = walls.features
        self.crowd: Crowd | None = None  # a session has no wall limit of its own
        self.awaited = False  # a branch is being made
        self.report: socket.socket | None = None  # on which a new session sends the listener of its filter
        self._walls = walls
        self._held: dict[str, int] = {}  # by tag: a descriptor, or the next namespace could get a dead one's number
        self.orphans_s = 0.0  # processor time of ended processes whose parents ended before them

    def prepare(self) -> None:
        """In the keeper: it sees its own processes, and they see nothing of it."""
        sc.unshare(sc.CLONE_NEWNS)
        mount_proc()
        self._table = ProcessTable(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY))
        sc.hide_memory()
        # A rule is for folders that are there already, and a branch's are not: here the read-only mounts hold alone.
        self._walls.writable = ["/"]

    def start(self, order: Order, descriptors: list[int]) -> Birth:
        return forked(order, descriptors, self)

    def fork(self) -> int:
        self.report, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            sc.allow_own_proc()
            self.report.close()
            self.report = theirs
        else:
            theirs.close()
        return pid

    def enclose(self, order: Order) -> str:
        return self._walls.enclose(order)

    def shut(self) -> None:
        """Where the kernel gives no listener the session goes on without, and cannot be forked."""
        assert self.report is not None
        try:
            listener = self._walls.branch_filter.install_with_listener()
        except OSError:
            self._walls.shut()
        else:
            socket.send_fds(self.report, [b"L"], [listener])
            os.close(listener)
        self.report.close()

    def tidy(self, order: Order) -> None:
        """All that a member had is gone with its namespaces."""

    def unbegun(self, pid: int, watch: int) -> bool:
        return self._table.unfiltered(pid)

    def overfull(self, order: Order, pid: int) -> bool:
        return False  # its file system has just that size

    def leave(self) -> None:
        """It has nothing on disk."""

    def usage(self, runs: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        """As of Walls. The time of processes whose parents ended before them counts for each member."""
        members = self.members()
        for pid, tag in members.items():
            if tag not in self._held and not self.awaited:  # of a branch that has come to nothing
                _kill(pid)
        memory: dict[str, list[int]] = defaultdict(list)
        for pid, tag in members.items():
            memory[tag].append(pid)
        return {pid: self._sum(memory[members[pid]]) if pid in members else (0, 0.0) for pid in runs}

    def _sum(self, pids: list[int]) -> tuple[int, float]:
        used, cpu_s = self._table.sum_of(pids)
        return used, cpu_s + self.orphans_s

    def members(self) -> dict[int, str]:
        """The tag of each process. One that hides its own is its parent's; one of which nothing is known is ended."""
        tags: dict[int, str] = {}
        parents: dict[int, int] = {}
        hidden = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or name == "1":
                continue
            pid = int(name)
            try:
                tags[pid] = os.readlink(f"/proc/{pid}/ns/mnt")
            except PermissionError:
                hidden.append(pid)
            except OSError:
                continue  # it has ended
        for pid in hidden:
            parents[pid] = self._table.parent_of(pid)
        for pid in hidden:
            above = pid
            while above in parents and above not in tags:
                above = parents[above]
            if above in tags:
                tags[pid] = tags[above]
            else:
                _kill(pid)
        return tags

    def hold(self, pid: int) -> str:
        """The tag of a new member, which nobody else gets until `let_go`. Empty if it has ended."""
        try:
            fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        except OSError:
            return ""
        tag = os.readlink(f"/proc/self/fd/{fd}")
        self._held[tag] = fd
        return tag

    def let_go(self, tag: str) -> None:
        if tag in self._held:
            os.close(self._held.pop(tag))

    def tag_of(self, pid: int) -> str:
        """Empty if it has ended."""
        try:
            return os.readlink(f"/proc/{pid}/ns/mnt")
        except OSError:
            return ""

    def end(self, tag: str, spare: int = 0) -> bool:
        """Kills all of a member's processes but `spare`, and says whether they are gone."""
        ends = time.monotonic() + _SWEEP_S
        while time.monotonic() < ends:
            left = [pid for pid, whose in self.members().items() if whose == tag and pid != spare]
            if not left:
                return True
            for pid in left:
                _kill(pid)
            for pid in left:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.001)
        return False

    def reap(self, known: set[int]) -> None:
        """Takes note of the ends of processes that nobody else waits for."""
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and found.si_pid not in known:
                _, _, used = os.wait4(found.si_pid, 0)
                self.orphans_s += used.ru_utime + used.ru_stime

    def unfit(self, pid: int, source: str) -> str:
        """Why a process is not to become a member: it must be alone in namespaces of its own, and have no rights."""
        tag = self.tag_of(pid)
        if not tag or tag == source:
            return "it has no namespaces of its own"
        if [each for each, whose in self.members().items() if whose == tag] != [pid]:
            return "it is not alone"
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = [line.split() for line in file if line.split()[0] in _NO_RIGHTS | {b"Threads:"}]
        if any(int(value, 16) != (key == b"Threads:") for key, value in lines):
            return "it has rights, or threads"
        return ""

    def furnish(self, order: Order, pid: int, owner: int) -> str:
        """Maps its ids, and gives it new folders with what it sees in the old ones. Returns what went wrong.

        `owner`: a descriptor of the user namespace that it has left.
        """
        ours, theirs = os.pipe()
        why, status = "", 1
        helper = os.fork()
        if helper == 0:
            try:
                _furnish(order, pid, owner)
                os._exit(0)
            except BaseException as error:
                os.write(theirs, f"{type(error).__name__}: {error}".encode(errors="replace")[:500])
            finally:
                os._exit(1)
        os.close(theirs)
        try:
            if not select.select([ours], [], [], _FURNISH_S)[0]:
                os.kill(helper, signal.SIGKILL)
                why = "its folders could not be copied in time"
            else:
                why = os.read(ours, 500).decode(errors="replace")  # which may end in the middle of a letter
        finally:
            os.close(ours)
            _, status = os.waitpid(helper, 0)
        return why or ("who should make its folders was killed" if status else "")  # code of the session could do it


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _furnish(order: Order, pid: int, owner: int) -> None:
    sc.setns(owner, sc.CLONE_NEWUSER)
    if os.getuid() != RUN_ID:  # nobody else is known in there
        os.setresgid(RUN_ID, RUN_ID, RUN_ID)
        os.setresuid(RUN_ID, RUN_ID, RUN_ID)
    for name in ("gid_map", "uid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(SAME)
    place = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    sc.setns(place, sc.CLONE_NEWNS)
    old = {name: os.open(name, os.O_RDONLY | os.O_DIRECTORY) for name in FOLDERS}
    make_folders(order)
    sc.no_new_privileges()
    sc.drop_capabilities()  # from here on it has to do with what the session's code has made
    for name, fd in old.items():
        os.fchdir(fd)
        shutil.copytree(".", name, symlinks=True, dirs_exist_ok=True, ignore=_special)


def _special(folder: str, names: list[str]) -> list[str]:
    """Pipes, sockets and what has gone in between, which are not copied."""
    return [name for name in names if not _plain(os.path.join(folder, name))]


def _plain(path: str) -> bool:
    with suppress(OSError):
        mode = os.lstat(path).st_mode
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
    return False
