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
from contextlib import suppress
from dataclasses import dataclass

from ..limits import MIB, Limits
from ..starts import ENVIRONMENT, JAIL, PREFIX, Process, loader
from . import owner
from .caller import RUNS, Caller, beginning
from .engine import Engine, find, last_line, remove_container, require_image

DEFAULT_IMAGE = "python:3.12-slim"
_USERS = (1_879_000_001, 64_998)  # who a worker is when root starts the pool: nobody who owns anything
_PROCESSES = 16384  # of one user: the sum over all containers
_OVERHEAD = 512 * MIB  # of a worker, beside its runs


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

    def check(self, limits: Limits) -> None:
        """Raises ValueError if a run with these does not fit in."""
        for name in ("memory_bytes", "disk_bytes", "processes"):
            if (wanted := getattr(limits, name)) > (most := getattr(self.limits, name)):
                raise ValueError(
                    f"Limits.{name} is {wanted}, and a container of this pool is made for {most}: give the pool "
                    "itself, as limits=, the largest that its runs will ask for"
                )


class Containers:
    """A place for workers: containers of one engine, all of one image."""

    files = True

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
            self._engine = engine
        container = Container(self._engine, self.image, walls, self.sizes)
        try:
            await container.start()
        except BaseException:
            container.end()
            raise
        return container

    def check(self, limits: Limits) -> None:
        self.sizes.check(limits)


class Container(Caller):
    def __init__(self, engine: Engine, image: str, walls: str, sizes: Sizes) -> None:
        super().__init__(f"{PREFIX}{owner.mark()}-{secrets.token_hex(6)}")
        self._engine, self._image, self._walls, self._sizes = engine, image, walls, sizes
        self.base = "" if walls == "zygote" else RUNS
        self.features = {
            "inside": walls,
            "image": image,
            "engine": f"{engine.name} {engine.version}",
            "rootless": engine.rootless,
        }

    def command(self, folder: str) -> list[str]:
        words = [self._engine.name, "run", *self._options(folder, self._let_in(folder)), self._image]
        return [*words, "-I", "-X", "utf8", "-c", beginning() + loader("/jail")]

    def _let_in(self, folder: str) -> tuple[int, int]:
        """The user and group of the container's processes, to whom the socket is opened."""
        if self._engine.maps_users:
            return 0, 0
        if os.geteuid():
            return os.geteuid(), os.getegid()
        for name in (folder, f"{folder}/control"):
            os.chmod(name, 0o711)
        for user in _USERS:
            with suppress(OSError):
                os.chown(f"{folder}/control/socket", user, user)
                return user, user
        return 0, 0

    def _options(self, folder: str, user: tuple[int, int]) -> list[str]:
        sizes = self._sizes
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = 65536 if most == resource.RLIM_INFINITY else min(most, 65536)
        words = [
            "--rm", "--pull=never", f"--name={self._name}", f"--label={owner.LABEL}={os.getpid()}",
            "--network=none", "--hostname=sandbox", "--read-only", "--cap-drop=ALL", "--log-driver=none",
            "--no-healthcheck", "--security-opt=no-new-privileges", "--security-opt=label=disable",
            f"--pids-limit={sizes.processes}", f"--memory={sizes.memory}", f"--memory-swap={sizes.memory}",
            f"--ulimit=nofile={files}:{files}", "--ulimit=core=0:0", f"--user={user[0]}:{user[1]}",
            "--tmpfs=/tmp:rw,nosuid,nodev,mode=1777,size=16m",
            f"--tmpfs={os.path.dirname(RUNS)}:rw,nosuid,nodev,mode=1777,size={sizes.disk}",
            f"--mount=type=bind,source={JAIL},target=/jail,readonly",
            f"--mount=type=bind,source={folder}/control,target=/control,readonly",
            "--workdir=/", "--entrypoint=python3",
        ]  # fmt: skip
        words += [f"--env={name}={value}" for name, value in ENVIRONMENT.items()]
        if self._engine.name == "podman":
            words += [f"--ulimit=nproc={_PROCESSES}:{_PROCESSES}"]  # its default may be more than it may set
            words += ["--userns=keep-id"] if self._engine.rootless else []
        if self._walls == "zygote":  # what hinders namespaces is taken off; a run's own filter of calls is the stricter
            covered = "unmask=ALL" if self._engine.name == "podman" else "systempaths=unconfined"
            words += [f"--security-opt={word}" for word in ("seccomp=unconfined", "apparmor=unconfined", covered)]
        return words

    def explain(self, said: str) -> str:
        words, advice = last_line(said), ""
        if "not found" in words and "python3" in words:
            advice = ": name an image with python3 in its PATH"
        elif "/control/socket" in said or "PermissionError" in words or "did not call" in words:
            advice = (
                ": if the daemon is in a virtual machine (Docker Desktop), or maps users (userns-remap), it cannot be "
                "given this machine's sockets"
            )
        return f"a container of {self._image!r} with {self._walls} inside: {words}{advice}"

    def destroy(self) -> None:
        remove_container(self._engine, self._name)
