"""Starts a worker in a container, and sees to it that the container goes when the worker does.

The container gets no network, no rights, a read-only root and two folders: our `jail`, read-only, and one with the
socket over which its first process calls back. When that connection ends, for whatever reason, that process ends, and
the container with it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import socket
import struct
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from ..jail.removal import remove
from ..limits import MIB, Limits
from ..result import TierUnavailable
from ..starts import ENVIRONMENT, JAIL, PREFIX, Process, loader, sweep
from . import owner
from .engine import Engine, find, last_line, remove_container, require_image

CONTAINER_TIERS = ("docker", "podman")
DEFAULT_IMAGE = "python:3.12-slim"
_USERS = (1_879_000_001, 64_998)  # who a worker is when root starts the pool: nobody who owns anything
_CALL_S = 60.0  # for a container to start and call back
_LEAVE_S = 10.0  # for it to go by itself
_PROCESSES = 16384  # of one user: the sum over all containers
_OVERHEAD = 512 * MIB  # of a worker, beside its runs
_RUNS = "/runs/here"
_START = f"""
import os, socket, sys
if sys.version_info < (3, 11):
    sys.exit("its Python is " + sys.version.split()[0] + ", and 3.11 or newer is needed")
os.mkdir({_RUNS!r}, 0o700)
null = os.open("/dev/null", os.O_RDWR)
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect("/control/socket")
for stream in (1, 2):
    os.dup2(null, stream)
sys.argv.append(str(control.detach()))
"""


@dataclass(frozen=True)
class Sizes:
    """What one container may use, in bytes and processes: enough for `runs` at once with these limits."""

    limits: Limits
    runs: int

    @property
    def memory(self) -> int:
        return self.runs * (self.limits.memory_bytes + self.limits.disk_bytes) + _OVERHEAD

    @property
    def disk(self) -> int:
        return self.runs * self.limits.disk_bytes

    @property
    def processes(self) -> int:
        return self.runs * self.limits.processes + 32


class Containers:
    """A place for workers: containers of one engine, all of one image."""

    def __init__(self, tier: str, image: str, sizes: Sizes) -> None:
        self.tier, self.image, self.sizes = tier, image, sizes
        self.walls: tuple[str, ...] = ("zygote", "landlock")
        self._engine: Engine | None = None

    async def open(self, walls: str) -> Process:
        """Raises TierUnavailable with what is missing and how to get it."""
        if self._engine is None:
            engine = await asyncio.to_thread(find, self.tier)
            await asyncio.to_thread(require_image, engine, self.image)
            await asyncio.to_thread(owner.sweep, engine)
            sweep()
            self._engine = engine
        container = Container(self._engine, self.image)
        try:
            await container.start(walls, self.sizes)
        except BaseException:
            container.end()
            raise
        return container

    def check(self, limits: Limits) -> None:
        most = self.sizes.limits
        for name in ("memory_bytes", "disk_bytes", "processes"):
            if (wanted := getattr(limits, name)) > getattr(most, name):
                raise ValueError(
                    f"Limits.{name} is {wanted}, and a container of this pool is made for {getattr(most, name)}: give "
                    "the pool itself, as limits=, the largest that its runs will ask for"
                )


class Container:
    def __init__(self, engine: Engine, image: str) -> None:
        self._engine, self._image = engine, image
        self._name = f"{owner.mark()}-{secrets.token_hex(6)}"
        self._client: subprocess.Popen[bytes] | None = None
        self._leaving: threading.Thread | None = None
        self.pid = 0
        self.base = ""
        self.features: dict[str, object] = {}

    async def start(self, walls: str, sizes: Sizes) -> None:
        """Raises TierUnavailable if it does not call back, with what the engine or the container said."""
        self.base = "" if walls == "zygote" else _RUNS
        self.features = {
            "inside": walls,
            "image": self._image,
            "engine": f"{self._engine.name} {self._engine.version}",
            "rootless": self._engine.rootless,
        }
        self._folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door, tempfile.TemporaryFile() as said:
                door.setblocking(False)
                door.bind(f"{self._folder}/socket")
                door.listen(1)
                command = [self._engine.name, "run", *self._options(walls, sizes, self._let_in()), self._image]
                self._launch([*command, "-I", "-X", "utf8", "-c", _START + loader("/jail")], said)
                control = await self._answer(door)
                if control is None:
                    said.seek(0)
                    raise TierUnavailable(self._why(walls, said.read().decode(errors="replace")))
        finally:
            remove(self._folder)  # the container keeps the socket that it has
        control.setblocking(False)
        self.control = control
        credentials = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid = struct.unpack("3i", credentials)[0]

    def _launch(self, command: list[str], said: IO[bytes]) -> None:
        """The engine's command stays until the container is gone."""
        self._client = subprocess.Popen(
            command, cwd="/", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip

    def _let_in(self) -> tuple[int, int]:
        """The user and group of the container's processes, to whom the socket is opened."""
        if self._engine.maps_users:
            return 0, 0
        if os.geteuid():
            return os.geteuid(), os.getegid()
        os.chmod(self._folder, 0o711)
        for user in _USERS:
            with suppress(OSError):
                os.chown(f"{self._folder}/socket", user, user)
                return user, user
        return 0, 0

    def _options(self, walls: str, sizes: Sizes, user: tuple[int, int]) -> list[str]:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = 65536 if most == resource.RLIM_INFINITY else min(most, 65536)
        words = [
            "--rm", "--pull=never", f"--name={self._name}", f"--label={owner.LABEL}={os.getpid()}",
            "--network=none", "--hostname=sandbox", "--read-only", "--cap-drop=ALL", "--log-driver=none",
            "--no-healthcheck", "--security-opt=no-new-privileges", "--security-opt=label=disable",
            f"--pids-limit={sizes.processes}", f"--memory={sizes.memory}", f"--memory-swap={sizes.memory}",
            f"--ulimit=nofile={files}:{files}", "--ulimit=core=0:0", f"--user={user[0]}:{user[1]}",
            "--tmpfs=/tmp:rw,nosuid,nodev,mode=1777,size=16m",
            f"--tmpfs={os.path.dirname(_RUNS)}:rw,nosuid,nodev,mode=1777,size={sizes.disk}",
            f"--mount=type=bind,source={JAIL},target=/jail,readonly",
            f"--mount=type=bind,source={self._folder},target=/control,readonly",
            "--workdir=/", "--entrypoint=python3",
        ]  # fmt: skip
        words += [f"--env={name}={value}" for name, value in ENVIRONMENT.items()]
        if self._engine.name == "podman":
            words += self._of_podman()
        if walls == "zygote":  # what is taken off here hinders namespaces; a run's own filter of calls is the stricter
            covered = "unmask=ALL" if self._engine.name == "podman" else "systempaths=unconfined"
            words += [f"--security-opt={word}" for word in ("seccomp=unconfined", "apparmor=unconfined", covered)]
        return words

    def _of_podman(self) -> list[str]:
        words = [f"--ulimit=nproc={_PROCESSES}:{_PROCESSES}"]  # its default may be more than it may set
        return [*words, "--userns=keep-id"] if self._engine.rootless else words

    async def _answer(self, door: socket.socket) -> socket.socket | None:
        """The connection of the container's first process; None if it has ended, or says nothing for too long."""
        assert self._client is not None
        calling = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(door))
        deadline = time.monotonic() + _CALL_S
        try:
            while time.monotonic() < deadline:
                over = self._client.poll() is not None
                await asyncio.wait({calling}, timeout=0 if over else 0.02)
                if calling.done():
                    return calling.result()[0]
                if over:
                    return None
        finally:
            calling.cancel()
        return None

    def _why(self, walls: str, said: str) -> str:
        words = last_line(said) or f"it did not call back within {_CALL_S:.0f} s"
        help_ = ""
        if "not found" in words and "python3" in words:
            help_ = ": name an image with python3 in its PATH"
        elif "/control/socket" in said or "ermission" in words or not said.strip():
            help_ = (
                ": is the daemon in a virtual machine (Docker Desktop), or does it map users (userns-remap)? Then it "
                "cannot be given this machine's sockets"
            )
        return f"a container of {self._image!r} with {walls} inside: {words}{help_}"

    def end(self) -> None:
        """In a thread of its own, which this process waits for before it ends: a container takes a while to go."""
        if self._client is not None and self._leaving is None:
            self._leaving = threading.Thread(target=self._leave, name=f"end of {self._name}")
            self._leaving.start()

    def _leave(self) -> None:
        assert self._client is not None
        with suppress(subprocess.TimeoutExpired):
            self._client.wait(_LEAVE_S)
        if self._client.returncode is None or self._client.returncode < 0:  # nobody has seen the container go
            remove_container(self._engine, self._name)
        self._client.kill()
        self._client.wait()

    async def gone(self) -> None:
        if self._leaving is not None:
            await asyncio.to_thread(self._leaving.join)
