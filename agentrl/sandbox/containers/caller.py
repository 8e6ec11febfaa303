"""A worker that is started by a command and calls back over a socket in a folder that the command has been shown.

In: a command. Out: a worker process as `starts` wants it. It knows no engine: what differs is left to the subclasses.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from typing import IO

from ..jail.removal import remove
from ..result import TierUnavailable
from . import owner

CALL_S = 60.0  # for a container to start and call back
_LEAVE_S = 10.0  # for it to go by itself
RUNS = "/runs/here"


def beginning(more: str = "") -> str:
    """The first lines of a worker's program inside: it calls back, and leaves the descriptor as last argument."""
    return f"""
import os, socket, sys
if sys.version_info < (3, 11):
    sys.exit("its Python is " + sys.version.split()[0] + ", and 3.11 or newer is needed")
os.mkdir({RUNS!r}, 0o700)
null = os.open("/dev/null", os.O_RDWR)
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect("/control/socket")
for stream in (1, 2):
    os.dup2(null, stream)
sys.argv.append(str(control.detach()))
{more}
"""


class Caller:
    keeps_folder = False  # whether it needs its folder after it has called

    def __init__(self, name: str) -> None:
        self.pid = 0
        self.base = ""
        self.features: dict[str, object] = {}
        self._name = name
        self._folder = ""
        self._client: subprocess.Popen[bytes] | None = None
        self._leaving: threading.Thread | None = None

    def command(self, folder: str) -> list[str]:
        """What starts it. `folder` has the socket, and may be changed."""
        raise NotImplementedError

    def explain(self, said: str) -> str:
        """Why it has not called back, and what to do. `said`: what the command wrote."""
        raise NotImplementedError

    def destroy(self) -> None:
        """Ends and removes it, whatever it does. Blocks."""
        raise NotImplementedError

    async def start(self) -> None:
        """Raises TierUnavailable if it does not call back."""
        self._folder = owner.new_folder()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door, tempfile.TemporaryFile() as said:
            door.setblocking(False)
            os.mkdir(f"{self._folder}/control", 0o700)
            door.bind(f"{self._folder}/control/socket")
            os.chmod(f"{self._folder}/control/socket", 0o600)  # whatever the umask: who calls is believed
            door.listen(1)
            self._launch(self.command(self._folder), said)
            control = await self._answer(door)
            if control is None:
                said.seek(0)
                text = said.read().decode(errors="replace")
                raise TierUnavailable(self.explain(text or f"it did not call back within {CALL_S:.0f} s"))
        if not self.keeps_folder:
            remove(self._folder)
        control.setblocking(False)
        self.control = control
        credentials = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid = struct.unpack("3i", credentials)[0]

    def _launch(self, command: list[str], said: IO[bytes]) -> None:
        """The command stays until the container is gone."""
        self._client = subprocess.Popen(
            command, cwd="/", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip

    async def _answer(self, door: socket.socket) -> socket.socket | None:
        """The connection of the first process inside; None if it has ended, or says nothing for too long."""
        assert self._client is not None
        calling = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(door))
        deadline = time.monotonic() + CALL_S
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

    def end(self) -> None:
        """In a thread of its own, which this process waits for before it ends: a container takes a while to go."""
        if self._leaving is None:
            self._leaving = threading.Thread(target=self._leave, name=f"end of {self._name}")
            self._leaving.start()

    def _leave(self) -> None:
        if self._client is not None:
            with suppress(subprocess.TimeoutExpired):
                self._client.wait(_LEAVE_S)
            if self._client.returncode is None or self._client.returncode < 0:  # nobody has seen the container go
                self.destroy()
            self._client.kill()
            self._client.wait()
        if self._folder:
            remove(self._folder)

    async def gone(self) -> None:
        if self._leaving is not None:
            await asyncio.to_thread(self._leaving.join)
