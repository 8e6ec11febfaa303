"""A program that talks with the caller, over a connection of its own: after an HTTP upgrade, messages go both ways.

Frames are those of `session`. The server's first one names its tier; then `{"said": message}` for each message of the
program, empty ones in between that say that the server lives, and at last `{"ended": how}`. The client's are
`{"tell": message}`. The connection is the lifeline: when it ends, so does the program. Both ends are here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..dialogue import Silent
from ..limits import Limits
from ..protocol import Pool, PoolDialogue
from ..result import RunResult, SandboxError
from . import wire
from .http import SWITCHING
from .session import BEAT_S, EMPTY, TAKE_S, frame, read_frame

if TYPE_CHECKING:
    from .asking import Line
    from .client import HttpPool

_FOREVER_S = 24 * 3600.0


async def serve_dialogue(
    pool: Pool, code: str, limits: Limits, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cap: int
) -> None:
    """The server's end. Raises SandboxError if no program can be had, ConnectionError or TimeoutError if the client is
    gone.
    """
    async with pool.dialogue(code, limits=limits) as talk:
        writer.write(SWITCHING)
        await _give(writer, frame({"tier": pool.tier}))
        told = asyncio.ensure_future(_pass_on(reader, talk, cap))
        hearing = asyncio.ensure_future(talk.receive(_FOREVER_S))
        try:
            while True:
                await asyncio.wait({told, hearing}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if told.done():
                    return told.result()
                if not hearing.done():
                    await _give(writer, EMPTY)
                elif (said := hearing.result()) is not None:
                    await _give(writer, frame({"said": said}))
                    hearing = asyncio.ensure_future(talk.receive(_FOREVER_S))
                else:
                    run = await talk.end()
                    await _give(writer, frame({"ended": None if run is None else wire.encode_run(run)}))
                    await asyncio.wait({told}, timeout=TAKE_S)  # until the client has taken it
                    return None
        finally:
            for task in (told, hearing):
                task.cancel()
                with suppress(asyncio.CancelledError, OSError, ValueError, Silent):
                    await task


async def _pass_on(reader: asyncio.StreamReader, talk: PoolDialogue, cap: int) -> None:
    """What the client tells, until it goes. Raises ConnectionError if it makes no sense."""
    while (data := await read_frame(reader, cap)) is not None:
        try:
            message = wire.decode_answer(data)["tell"]
        except (ValueError, KeyError):
            raise ConnectionError("the client tells what makes no sense") from None
        await talk.send(message)


async def _give(writer: asyncio.StreamWriter, data: bytes) -> None:
    async with asyncio.timeout(TAKE_S):
        writer.write(data)
        await writer.drain()


class HttpDialogue:
    """Made by `HttpPool.dialogue`; as a local one, but that its server can fail: then `end` says so."""

    def __init__(self, pool: HttpPool, code: str, limits: Limits) -> None:
        self._pool = pool
        self._opening = wire.encode_dialogue(code, limits)
        self._ended: RunResult | None = None

    async def __aenter__(self) -> HttpDialogue:
        """Raises SandboxError if no server can be had, or one is too weak."""
        self._line: Line = await self._pool.open_line(self._opening, "dialogue")
        try:
            tier = (await self._next() or {}).get("tier")
            if not self._pool.strong(str(tier)):
                raise SandboxError(f"{self._line.server} has tier {tier!r}, which is weaker than what is wanted")
        except (OSError, TimeoutError, ValueError) as error:
            self._line.close()
            raise SandboxError(f"{self._line.server}: {error or 'it does not answer'}") from error
        except BaseException:
            self._line.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()

    async def send(self, message: Mapping[str, Any]) -> None:
        """A program or a server that is gone hears nothing; `receive` will say so."""
        with suppress(OSError, TimeoutError):
            self._line.writer.write(frame({"tell": message}))
            async with asyncio.timeout(self._line.silence_s):
                await self._line.writer.drain()

    async def receive(self, within_s: float) -> dict[str, Any] | None:
        """The next message, or None if the program said nothing that makes sense, or is gone. Raises Silent."""
        waiting = asyncio.ensure_future(self._next())
        try:
            await asyncio.wait({waiting}, timeout=within_s)
            if not waiting.done():
                raise Silent
            said = waiting.result()
        except (OSError, TimeoutError, ValueError) as error:
            self._fail(str(error) or "it does not answer")
            return None
        finally:
            waiting.cancel()
        if said is not None and isinstance(said.get("said"), dict):
            message: dict[str, Any] = said["said"]
            return message
        self._end(said)
        return None

    async def _next(self) -> dict[str, Any] | None:
        """What the server says next; None if it has hung up. Raises OSError, TimeoutError or ValueError."""
        data: bytes | None = b""
        while data == b"":
            async with asyncio.timeout(self._line.silence_s):
                data = await read_frame(self._line.reader, self._line.cap)
        return None if data is None else wire.decode_answer(data)

    def _end(self, said: Mapping[str, Any] | None) -> None:
        if said is None or "ended" not in said:
            self._fail("it has hung up" if said is None else "its answer makes no sense")
        elif said["ended"] is not None:
            try:
                self._ended = wire.decode_run(said["ended"], "http")
            except ValueError as error:
                self._fail(str(error))

    def _fail(self, why: str) -> None:
        self._ended = RunResult("infra_error", backend="http", error=f"{self._line.server}: {why}")

    async def end(self) -> RunResult | None:
        """How its process ended; None if it went on, and is ended now."""
        return self._ended
