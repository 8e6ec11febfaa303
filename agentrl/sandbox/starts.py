"""Where worker processes of a pool are started: here, as children of this process. `containers` has the other places.

In: a tier. Out: a process with a control socket, to which `worker` speaks. It knows no orders and no results.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from .jail.removal import remove
from .limits import Limits

JAIL = Path(__file__).parent / "jail"
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
ENVIRONMENT = {
    "PATH": PROGRAMS,
    "HOME": "/work",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
}
PREFIX = "sandbox-runner-"
_CLEARING_S = 2.0  # for a worker with folders on disk to clear up and end by itself


class Process(Protocol):
    """A worker process, from its start to its end."""

    control: socket.socket
    pid: int  # of its first process, 0 if this machine has no number for it
    base: str  # the folder for what its runs have on disk, as it sees it; empty where runs need none
    features: dict[str, object]  # of the place; the worker adds those of its walls

    def end(self) -> None:
        """After `control` was closed, in the event loop: sees to it that the process goes. Does not wait."""

    async def gone(self) -> None:
        """After `end`: returns when nothing of it is left."""


class Place(Protocol):
    tier: str
    files: bool  # whether a run's folder can be read from here
    walls: tuple[str, ...]  # of runs, as the worker calls them, the strongest first; who has started leaves one

    async def open(self, walls: str) -> Process:
        """Raises TierUnavailable with the reason."""

    def check(self, limits: Limits) -> None:
        """Raises ValueError if a run cannot be given these."""


def loader(jail: str) -> str:
    """The program that a worker is started with; the number of its control descriptor is its last argument."""
    return f"""
import sys, importlib.util
spec = importlib.util.spec_from_file_location("sandbox_jail", {jail + "/__init__.py"!r},
                                              submodule_search_locations=[{jail!r}])
sys.modules["sandbox_jail"] = importlib.util.module_from_spec(spec)
from sandbox_jail.boot import main
main()
"""


class Here:
    """Children of this process, with the walls that the tier is named after."""

    files = True

    def __init__(self, tier: str) -> None:
        self.tier = tier
        self.walls: tuple[str, ...] = (tier,)

    async def open(self, walls: str) -> Process:
        return Child(walls)

    def check(self, limits: Limits) -> None:
        """Any will do."""


class Child:
    def __init__(self, walls: str) -> None:
        self.features: dict[str, object] = {}
        self.base = ""
        self._patience_s = 0.0
        self._ending: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        if walls != "zygote":
            sweep()
            self.base = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
            self._patience_s = _CLEARING_S
        try:
            self._spawn()
        except OSError:
            remove(self.base) if self.base else None
            raise

    def _spawn(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        command = [sys.executable, "-I", "-X", "utf8", "-c", loader(str(JAIL)), str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=ENVIRONMENT, cwd="/", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self.pid = self._process.pid

    def end(self) -> None:
        thread = ThreadPoolExecutor(1, "sandbox-end")  # its own, so that workers end together and wait for nobody
        self._ending = self._loop.run_in_executor(thread, self._end, time.monotonic() + self._patience_s)
        thread.shutdown(wait=False)

    def _end(self, deadline: float) -> None:
        with suppress(subprocess.TimeoutExpired):  # it ends by itself when the socket does, and clears up before
            self._process.wait(max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.wait()
        if self.base:
            remove(self.base)

    async def gone(self) -> None:
        if self._ending is not None:
            await self._ending


def sweep() -> None:
    """Removes folders of pools that were killed together with their workers."""
    if not os.path.exists("/proc/self"):
        return  # nobody could be seen to be alive
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*-*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(OSError):
            if owner.isdigit() and folder.stat().st_uid == os.geteuid() and not os.path.exists(f"/proc/{owner}"):
                remove(str(folder))
