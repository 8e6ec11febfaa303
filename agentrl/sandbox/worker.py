"""A worker process seen from the pool: starts it, sends it orders, notices its death. It knows no results."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .jail.order import Order
from .jail.removal import remove
from .preload import Preload
from .result import SandboxError, TierUnavailable

_JAIL = Path(__file__).parent / "jail"
_START = f"""
import sys, importlib.util
spec = importlib.util.spec_from_file_location("sandbox_jail", {str(_JAIL / "__init__.py")!r},
                                              submodule_search_locations=[{str(_JAIL)!r}])
sys.modules["sandbox_jail"] = importlib.util.module_from_spec(spec)
from sandbox_jail.boot import main
main()
"""
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/work",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
}
_PREFIX = "sandbox-runner-"
_START_S = 60.0


class Worker:
    """One fork server. `tier` is `zygote`, `landlock` or `none`."""

    def __init__(self, tier: str, preload: Preload) -> None:
        self.tier = tier
        self.features: dict[str, Any] = {}
        self.load = 0  # runs that are under way here
        self.alive = False
        self._config: dict[str, Any] = {"tier": tier, "preload": list(preload.modules), "warm": preload.warm}
        self._base = ""

    async def start(self) -> None:
        """Raises TierUnavailable with the step that this machine refuses."""
        if self.tier != "zygote":
            _sweep()
            self._base = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
        self._spawn()
        self._loop = asyncio.get_running_loop()
        try:
            self._control.send(json.dumps({**self._config, "base": self._base}).encode())
            answer = await asyncio.wait_for(self._loop.sock_recv(self._control, 1 << 16), _START_S)
            said: dict[str, Any] = json.loads(answer or b'{"error": "the process died while starting"}')
        except (OSError, TimeoutError) as error:
            said = {"error": f"no answer: {error or 'it took too long'}"}
        except BaseException:
            self._end_process()
            raise
        if "error" in said:
            self._end_process()
            raise TierUnavailable(f"tier {self.tier!r} cannot be had here: {said['error']}")
        self.features = said["features"]
        self.alive = True
        self._loop.add_reader(self._control, self._died)

    def _spawn(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        command = [sys.executable, "-I", "-X", "utf8", "-c", _START, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=_ENVIRONMENT, cwd="/", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of the process that the pool started; with namespaces, the fork server is a child of it."""
        return self._process.pid

    async def send(self, order: Order, descriptors: Sequence[int]) -> None:
        """Raises SandboxError if the worker is gone."""
        data = order.encode()
        while self.alive:
            try:
                socket.send_fds(self._control, [data], descriptors)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS):
                    self._died()
            await asyncio.sleep(0.001)  # its queue is full
        raise SandboxError("the worker process is gone")

    def folder_of(self, order: Order) -> str:
        return os.path.join(self._base, order.name)

    def close(self) -> None:
        """Ends the process and with it all its runs."""
        self._died()

    def _died(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control)
        self._end_process()

    def _end_process(self) -> None:
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # a fork of this process may hold it open
        self._control.close()
        with suppress(subprocess.TimeoutExpired):  # it ends by itself when the socket does, and clears up before
            self._process.wait(0 if self.tier == "zygote" else 2)
        self._process.kill()
        self._process.wait()
        if self._base:
            remove(self._base)


def _sweep() -> None:
    """Removes folders of pools that were killed together with their workers."""
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):
            if owner.isdigit() and folder.stat().st_uid == os.geteuid() and not os.path.exists(f"/proc/{owner}"):
                remove(str(folder))
