"""A session over a connection of its own: after an HTTP upgrade, cells go one way and results come back, as frames.

A frame is four bytes of length and JSON; an empty one says that a cell still runs. The connection is the lifeline: when
it ends, for whatever reason, the session ends with it. Both ends are here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..limits import Limits
from ..pool import SandboxPool
from ..result import CellResult, SandboxError, SessionLost
from ..session import Session
from . import wire
from .http import SWITCHING

if TYPE_CHECKING:
    from .asking import Line
    from .client import HttpPool

BEAT_S = 1.0
EMPTY = bytes(4)
TAKE_S = 60.0  # for a client to take a result


async def read_frame(reader: asyncio.StreamReader, cap: int) -> bytes | None:
    """None where the connection ended between two frames. Raises ConnectionError where it ended elsewhere."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > cap:
            raise ConnectionError(f"a frame of {size} bytes came; at most {cap} are taken")
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        if error.partial or error.expected != 4:
            raise ConnectionError("the connection ended in the middle of a frame") from None
        return None


def frame(said: Mapping[str, Any]) -> bytes:
    content = json.dumps(said).encode()
    return len(content).to_bytes(4, "big") + content


async def serve_session(
    pool: SandboxPool,
    opening: wire.Opening,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    cap: int,
    longest_s: float,
) -> None:
    """The server's end. Raises SandboxError if there is no session to be had, ConnectionError if the client is gone."""
    async with pool.session(files=opening.files, limits=opening.limits) as session:
        writer.write(SWITCHING)
        while True:
            try:
                async with asyncio.timeout(opening.idle_s):
                    data = await read_frame(reader, cap)
            except TimeoutError:
                said, lost = {"lost": f"idle for {opening.idle_s:g} s"}, True
            else:
                if data is None:
                    return
                said, lost = await _answer(session, data, longest_s, reader, writer)
            async with asyncio.timeout(TAKE_S):
                writer.write(frame(said))
                await writer.drain()
            if lost:
                with suppress(ConnectionError, TimeoutError):  # until the client has taken it
                    async with asyncio.timeout(TAKE_S):
                        session.close()
                        await reader.read(1)
                return


async def _answer(
    session: Session, data: bytes, longest_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[dict[str, Any], bool]:
    """(frame, whether the session is over)."""
    try:
        cell, wall_s = wire.decode_cell(data)
        if wall_s > longest_s:
            raise ValueError(f"wall_s is {wall_s}, and this server allows {longest_s}")
    except ValueError as error:
        return {"refused": str(error)[:500]}, False
    running = asyncio.ensure_future(session.run(cell, wall_s=wall_s))
    gone = asyncio.ensure_future(reader.read(1))
    try:
        while not running.done():
            await asyncio.wait({running, gone}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not running.done():
                raise ConnectionResetError("the client is gone, or speaks out of turn")
            if not running.done():
                writer.write(EMPTY)
        result = running.result()
        return {"cell": asdict(result)}, result.lost
    except SessionLost as error:
        return {"lost": str(error)}, True
    finally:
        for task in (running, gone):
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError, SandboxError):
                await task


class HttpSession:
    """Made by `HttpPool.session`; as a local Session, but that its server can fail: then it is lost."""

    def __init__(self, pool: HttpPool, files: Mapping[str, str | bytes], limits: Limits, idle_s: float) -> None:
        self.pool, self.limits = pool, limits
        self._opening = wire.encode_opening(files, limits, idle_s)
        self._line: Line | None = None
        self._why = "it is not open"
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> HttpSession:
        """Raises SandboxError if no server can be had."""
        self._line = await self.pool.open_line(self._opening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process. May be called more than once."""
        self._lose("closed")

    async def run(self, cell: str, *, wall_s: float | None = None) -> CellResult:
        """As Session.run. Raises SandboxError for a limit that the server does not allow."""
        async with self._turn:
            if self._line is None:
                raise SessionLost(f"the session has ended: {self._why}")
            try:
                said = await self._ask(self._line, {"cell": cell, "wall_s": wall_s or self.limits.wall_s})
            except (OSError, TimeoutError, ValueError) as error:
                why = f"{self._line.server}: {error or 'it does not answer'}"
                self._lose(why)
                return CellResult("infra_error", error=why, lost=True)
            except BaseException:
                self.close()  # cancelled in the middle: what the process would say next is not known
                raise
            return self._judge(said)

    async def fork(self) -> HttpSession:
        """Not to be had: raises SandboxError."""
        raise SandboxError(
            "a session on a server cannot be forked: it lives as long as its connection. Fork those of a SandboxPool"
        )

    async def _ask(self, line: Line, said: Mapping[str, Any]) -> dict[str, Any]:
        content = frame(said)
        with suppress(ConnectionError):  # it may have said why before it went
            line.writer.write(content)
            async with asyncio.timeout(line.silence_s):
                await line.writer.drain()
        data: bytes | None = b""
        while data == b"":
            async with asyncio.timeout(line.silence_s):
                data = await read_frame(line.reader, line.cap)
        if data is None:
            raise ConnectionError("the connection has ended")
        return wire.decode_answer(data)

    def _judge(self, said: Mapping[str, Any]) -> CellResult:
        if "refused" in said:
            raise SandboxError(f"the cell was refused: {said['refused']}")
        if "lost" in said:
            self._lose(str(said["lost"])[:300])
            raise SessionLost(f"the session has ended: {self._why}")
        try:
            result = wire.decode_cell_result(said.get("cell"))
        except ValueError as error:
            result = CellResult("infra_error", error=f"a server's answer makes no sense: {error}", lost=True)
        if not self.pool.strong(result.tier) and result.status != "infra_error":
            result = CellResult("infra_error", error=f"a server ran it on tier {result.tier!r}", lost=True)
        if result.lost:
            self._lose(result.error)
        return result

    def _lose(self, why: str) -> None:
        if self._line is not None:
            self._why = why
            self._line.close()
            self._line = None
