"""A program in a run of its own that talks with this process over its descriptor 3: 4 bytes of length, then JSON."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .jail.order import encode_payload
from .limits import Limits
from .live import LiveRun
from .result import RunResult, starting

if TYPE_CHECKING:
    from .pool import SandboxPool

_FOREVER_S = 24 * 3600.0
_LONGEST = 16 << 20  # bytes of a message
_LAST_S = 2.0  # for a process that has closed its end of the socket to be reported dead


class Silent(Exception):
    """Nothing was said in time."""


class Dialogue:
    """Made by `SandboxPool.dialogue`. Not counted among the pool's runs at once: whoever waits here for other runs
    would wait for the room that it takes itself.
    """

    def __init__(self, pool: SandboxPool, code: str, limits: Limits) -> None:
        self._pool, self._code, self._limits = pool, code, replace(limits, wall_s=_FOREVER_S)

    async def __aenter__(self) -> Dialogue:
        """Returns when its walls stand, so that nobody counts them as the program's time. Raises SandboxError if there
        is no worker for it.
        """
        self._loop = asyncio.get_running_loop()
        with starting("the tests"):
            self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        payload = encode_payload({"code": self._code, "argv": []}, {})
        try:
            with theirs:
                order = self._pool.order("program", self._limits)
                self._live: LiveRun = await self._pool.launch(order, self._limits, payload, spare=theirs.fileno())
        except BaseException:
            self._socket.close()
            raise
        try:
            await asyncio.wait({self._live.ready})
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._pool.release(self._live)

    async def send(self, message: Mapping[str, Any]) -> None:
        """A process that is gone hears nothing; `receive` will say so."""
        body = json.dumps(message).encode()
        try:
            await self._loop.sock_sendall(self._socket, len(body).to_bytes(4, "big") + body)
        except OSError:
            return

    async def receive(self, within_s: float) -> dict[str, Any] | None:
        """The next message, or None if the process said nothing that makes sense, or is gone. Raises Silent."""
        try:
            async with asyncio.timeout(within_s):
                size = int.from_bytes(await self._exactly(4), "big")
                said = json.loads(await self._exactly(size)) if size <= _LONGEST else None
        except TimeoutError:
            raise Silent from None
        except (OSError, EOFError, ValueError, RecursionError):
            return None
        return said if isinstance(said, dict) else None

    async def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = await self._loop.sock_recv(self._socket, size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    async def end(self) -> RunResult | None:
        """How its process ended; None if it went on, and is ended now."""
        await asyncio.wait({self._live.done}, timeout=_LAST_S)
        return self._pool.result(self._live, self._limits) if self._live.done.done() else None
