"""Walls that another program builds: `bwrap`, one for each run, with an interpreter of its own inside.

It makes the namespaces, the read-only root and the folders in memory, and installs our filter of system calls before
it starts `inside.py` as the first process there. That one greets this worker, which ends `bwrap` and so becomes the
parent of the run: how it ends is then told by the kernel and by nobody else. No path of the machine is shown but those
of its programs and of the interpreter.
"""

from __future__ import annotations

import fcntl
import os
import py_compile
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from . import root, seccomp, trees
from . import syscalls as sc
from .alone import reachable_for
from .crowd import Crowd
from .inside import FILTER, FOLDERS, RUN_ID, start_text
from .namespaces import OUTER_IDS
from .order import Order
from .policy import with_namespaces
from .processes import ProcessTable
from .removal import remove
from .walls import Birth

_CODE = "/python/jail"
_NAMESPACES = ("user", "pid", "net", "ipc", "uts")
_REACHED = ("/mnt", "/media", "/srv", "/tmp")
_TRIAL_S = 30
_SPARE_NUMBERS = 200  # above all that descriptors are put to


@dataclass
class _Held:
    """What this worker holds of one run."""

    pid: int  # to be waited for
    greeting: socket.socket
    folders: list[int] = field(default_factory=list)
    adopted: bool = False
    begun: bool = False  # what is in its folders is its own doing

    def has_begun(self) -> bool:
        """Whether its program has: the first process says so, last of all."""
        with suppress(OSError):
            self.begun = self.begun or bool(self.greeting.recv(1, socket.MSG_DONTWAIT))
        return self.begun


class Bubblewrap:
    def __init__(self, base: str, preload: Sequence[str] = (), warm: str = "") -> None:
        """`base`: an absolute path of a folder of mode 0700 that is the pool's own. `preload` and `warm` cost their
        time in each run.
        """
        self.features: dict[str, object] = {}
        self.crowd: Crowd | None = None
        self._base = base
        self._preload, self._warm = list(preload), warm
        self._user: int | None = None
        self._store = base  # where what runs are shown of this package stands
        self._held: dict[str, _Held] = {}  # by the order's name

    def prepare(self) -> None:
        program = shutil.which("bwrap", path=os.environ.get("PATH", os.defpath))
        if program is None:
            raise OSError("there is no `bwrap` among this machine's programs: install the package bubblewrap")
        if not os.path.isdir("/proc/self"):
            raise OSError("there is no /proc, without which runs cannot be watched")
        self._program = program
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self._table, self.crowd = ProcessTable(proc), Crowd(proc)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # six are held of each run
        sc.adopt_orphans()
        self._become_nobody()
        self._fill_store()
        self._look_around()
        version = re.search(r"[\d.]+", self._try("--version"))
        self._try(*self._walls(1 << 20), *self._interpreter, "-c", "pass")
        self.features = {
            "bwrap": version.group() if version else "",
            "own_user": self._user is not None,
            "watched": True,
        }

    def _become_nobody(self) -> None:
        """Started by root, runs are a user of their own. It reaches the folders of the interpreter through places in
        a mount namespace of this worker, or if root may not make one, as it can.
        """
        self._places = trees.inside_names(trees.python_folders())
        self._sources = {outside: outside for outside, _ in self._places}
        nobody = next(filter(_can_be, OUTER_IDS), None) if os.geteuid() == 0 else None
        if nobody is None:
            return
        with suppress(OSError):
            sc.unshare(sc.CLONE_NEWNS)
            sc.mount("", "/", flags=sc.MS_REC | sc.MS_PRIVATE)
            store = _unused([self._program, __file__, *sys.path, *self._sources])
            sc.mount("tmpfs", store, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=711,size=16m")
            self._store = store
            for number, outside in enumerate(self._sources):
                place = f"{store}/place{number}"
                os.mkdir(place)
                sc.mount(outside, place, flags=sc.MS_BIND | sc.MS_REC)
                sc.seal_mounts(place)
                self._sources[outside] = place
            self._user = nobody
        if self._user is None and reachable_for(nobody):
            self._user = nobody
            os.chmod(self._base, 0o711)

    def _fill_store(self) -> None:
        """What runs get to see of this package, and an /etc. Once, and read-only to them."""
        old = os.umask(0o022)
        for name in ("etc/alternatives", "jail/sandbox_jail"):
            os.makedirs(f"{self._store}/{name}")
        for source in Path(__file__).parent.glob("*.py"):
            place = f"sandbox_jail/{source.stem}.pyc"
            py_compile.compile(str(source), f"{self._store}/jail/{place}", f"{_CODE}/{place}", doraise=True)
        root.fill_etc(f"{self._store}/etc")
        Path(f"{self._store}/filter").write_bytes(seccomp.build(with_namespaces(unix_sockets=True)))
        os.umask(old)

    def _look_around(self) -> None:
        executable = trees.moved(os.path.realpath(getattr(sys, "_base_executable", sys.executable)), self._places)
        if executable is None:
            raise OSError(f"the interpreter {sys.executable} is in no folder that a run sees")
        self._interpreter = [executable, "-I", "-S", "-X", "utf8"]
        text = start_text(_CODE, trees.paths_inside(self._places), self._preload, self._warm)
        self._command = [*self._interpreter, "-c", text]
        shown = [pair for pair in root.system_folders() if pair[0] != "/etc/alternatives"]
        shown += [(self._sources[outside], inside) for outside, inside in self._places]
        shown += [(f"{self._store}/jail", _CODE), (f"{self._store}/etc", "/etc")]
        shown += [(name, name) for name in trees.SYSTEM if name == "/etc/alternatives" and os.path.isdir(name)]
        self._root = [word for outside, inside in shown for word in ("--ro-bind", outside, inside)]
        for name, target in root.system_links().items():
            self._root += ["--symlink", target, name]
        self._root += ["--tmpfs", "/dev"]
        for name in root.DEVICES:
            self._root += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
        for name, target in root.STREAMS.items():
            self._root += ["--symlink", target, f"/dev/{name}"]

    def _walls(self, disk_bytes: int) -> list[str]:
        words = [f"--unshare-{name}" for name in _NAMESPACES]
        words += ["--unshare-cgroup-try", "--uid", str(RUN_ID), "--gid", str(RUN_ID), "--hostname", "sandbox"]
        words += ["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv"]
        for name, value in os.environ.items():
            words += ["--setenv", name, value]
        words += self._root
        for folder in FOLDERS:
            words += ["--size", str(min(disk_bytes, 1 << 60)), "--tmpfs", folder]
        words += ["--dir", "/var", "--symlink", "/tmp", "/var/tmp", "--proc", "/proc"]
        words += ["--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/"]
        return [*words, "--seccomp", str(FILTER), "--chdir", "/work"]

    def _try(self, *words: str) -> str:
        """Runs it as for a run, and returns what it wrote. Raises OSError with its own words if it fails."""
        with open(f"{self._store}/filter", "rb") as file:
            os.dup2(file.fileno(), FILTER)
        try:
            ended = subprocess.run(
                [self._program, *words], pass_fds=[FILTER], user=self._user, group=self._user, stdin=subprocess.DEVNULL,
                extra_groups=None if self._user is None else [], capture_output=True, text=True, timeout=_TRIAL_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{self._program} did not end within {_TRIAL_S} s") from error
        finally:
            os.close(FILTER)
        if ended.returncode:
            raise OSError(f"{self._program} ended with {ended.returncode}: {ended.stderr.strip()[-1000:]}")
        return ended.stdout

    def start(self, order: Order, descriptors: list[int]) -> Birth:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs:
            pid = os.fork()
            if pid == 0:
                self._become(order, descriptors, theirs.fileno())
        held = self._held[order.name] = _Held(pid, ours)
        return Birth(pid, _Greeting(held, order))

    def _become(self, order: Order, descriptors: list[int], greeting: int) -> NoReturn:
        """In the new process: `bwrap`, with the descriptors where `inside` looks for them and no others."""
        try:
            channel, stdin, stdout, stderr, payload, *spare = descriptors
            given = [stdin, stdout, stderr, greeting, channel, payload, os.open(f"{self._store}/filter", os.O_RDONLY)]
            given = [fcntl.fcntl(fd, fcntl.F_DUPFD, _SPARE_NUMBERS) for fd in (*given, *spare)]
            for target, fd in enumerate(given):
                os.dup2(fd, target)
            os.closerange(len(given), 1 << 20)
            if self._user is not None:
                _be(self._user)
            os.execv(
                self._program, [self._program, *self._walls(order.disk_bytes), *self._command, *["spare"] * len(spare)]
            )
        except BaseException as error:
            os.write(2, f"{self._program}: {error}\n".encode(errors="replace"))
        finally:
            os._exit(127)

    def tidy(self, order: Order) -> None:
        held = self._held.pop(order.name)
        held.greeting.close()
        for folder in held.folders:
            os.close(folder)
        if not held.adopted:
            self._end_strangers()

    def _end_strangers(self) -> None:
        """What a `bwrap` has left here that ended before its run was adopted."""
        known = {held.pid for held in self._held.values()}
        with suppress(OSError):
            for pid in map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
                if pid not in known:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def unbegun(self, pid: int, watch: int) -> bool:
        return not next(held for held in self._held.values() if held.pid == pid).has_begun()

    def overfull(self, order: Order, pid: int) -> bool:
        """Each folder has its size from the kernel; their sum, and the number of files, are looked at."""
        held = self._held[order.name]
        if not held.has_begun():
            return False
        found = [os.fstatvfs(folder) for folder in held.folders]
        used = sum((each.f_blocks - each.f_bfree) * each.f_frsize for each in found)
        return used > order.disk_bytes or sum(each.f_files - each.f_ffree for each in found) > order.files

    def leave(self) -> None:
        remove(self._base)

    def usage(self, runs: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        return self._table.usage(runs)


def _unused(paths: Sequence[str]) -> str:
    """A folder that everybody reaches and that holds none of these. Raises OSError if there is none."""
    for folder in _REACHED:
        if os.path.isdir(folder) and not any(trees.below(os.path.realpath(path), folder) for path in paths if path):
            return folder
    raise OSError(f"all of {', '.join(_REACHED)} are in use")


def _be(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _can_be(user: int) -> bool:
    """Tried in a child: a container may know few users."""
    pid = os.fork()
    if pid == 0:
        with suppress(OSError):
            _be(user)
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


class _Greeting:
    def __init__(self, held: _Held, order: Order) -> None:
        self._held, self._order = held, order

    def fileno(self) -> int:
        return self._held.greeting.fileno()

    def adopt(self) -> int:
        pid, self._held.folders = self._receive()
        os.kill(self._held.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self._held.pid, os.WEXITED | os.WNOWAIT)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)  # an error if it has ended and is known to have
        os.waitpid(self._held.pid, 0)
        self._held.pid, self._held.adopted = pid, True
        with suppress(OSError):  # what has ended is heard otherwise
            self._held.greeting.send(self._order.encode())
        return pid

    def _receive(self) -> tuple[int, list[int]]:
        """Number, in this process's eyes, and folders of who greets. Raises OSError if nobody does."""
        space = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4 * len(FOLDERS))
        word, said, _, _ = self._held.greeting.recvmsg(16, space, socket.MSG_CMSG_CLOEXEC)
        pid, folders = 0, array("i")
        for _, kind, data in said:
            if kind == socket.SCM_CREDENTIALS:
                pid = int.from_bytes(data[:4], sys.byteorder)
            elif kind == socket.SCM_RIGHTS:
                folders.frombytes(data[: len(data) - len(data) % folders.itemsize])
        if not word or not pid:
            raise OSError("nobody greets")
        return pid, list(folders)

    def refuse(self) -> None:
        self._held.greeting.close()
