"""A stateful session: one jailed process that stays and runs cell after cell, as a notebook's kernel does.

The conversation with it is a conversation with the code that runs there: an answer that makes no sense ends the
session, and no answer is more than the code's own word. Verdicts are to be had from `SandboxPool.run` and `call`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import TYPE_CHECKING, Any

from .jail.order import encode_payload
from .limits import Limits
from .live import LiveRun
from .result import CellResult, RunResult, SessionLost, Status, starting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from .pool import SandboxPool

_AFTER_INTERRUPT_S = 1.0  # for a cell to end after control-C
_LAST_WORDS_S = 2.0  # for a process that has answered nonsense, or says that it leaves, to end by itself
_ANSWER_CAP = 1 << 16
_ENDINGS: dict[str, Status] = {"ok": "ok", "error": "error", "interrupted": "error", "exit": "error"}


class Session:
    """Made by `SandboxPool.session`. `limits.wall_s` is for each cell, all else for the session; one cell at a time."""

    def __init__(self, pool: SandboxPool, limits: Limits, files: Mapping[str, bytes], idle_s: float | None) -> None:
        self.pool, self.limits = pool, limits
        self.lost: RunResult | None = None
        self._files, self._idle_s = files, idle_s
        self._live: LiveRun | None = None
        self._socket: socket.socket | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Session:
        """Raises SandboxError if there is no worker for it."""
        self._loop = asyncio.get_running_loop()
        with starting("the session"):
            ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._socket = ours
        order = self.pool.order("cells", self.limits)
        try:
            with theirs:
                payload = encode_payload({}, dict(self._files))
                self._live = await self.pool.launch(order, self.limits, payload, spare=theirs.fileno())
        except BaseException:
            ours.close()
            raise
        self._rest()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process. May be called more than once."""
        if self._idle:
            self._idle.cancel()
        if self._live is not None:
            self.pool.release(self._live)
            self._live = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket)  # of a talk that is cancelled and does not know it yet: the next
            self._loop.remove_writer(self._socket)  # socket of this number would never be heard
            self._socket.close()
            self._socket = None

    async def run(self, cell: str, *, wall_s: float | None = None) -> CellResult:
        """Runs a cell and returns what it wrote; the value of a last expression is shown as at a prompt.

        At its limit it is interrupted as by control-C, and a second later killed. Raises SessionLost if the session
        has ended before this cell, by a limit, idleness, `exit()` or `close`.
        """
        async with self._turn:
            if self._live is None:
                raise SessionLost(f"the session has ended: {self.lost.error if self.lost else 'closed'}", self.lost)
            if self._idle:
                self._idle.cancel()
            began = time.monotonic()
            try:
                said, late = await self._ask(self._live, cell, wall_s or self.limits.wall_s)
            except BaseException:
                self.close()  # cancelled in the middle: what the process would say next is not known
                raise
            return await self._judge(said, late, time.monotonic() - began)

    async def _ask(self, live: LiveRun, cell: str, wall_s: float) -> tuple[dict[str, Any] | None, bool]:
        """(answer, or None if there was none that makes sense; whether the limit passed)."""
        talk = asyncio.ensure_future(self._talk(cell))
        watch: set[asyncio.Future[Any]] = {talk, live.done}
        late = False
        try:
            if not live.ready.done():
                either: set[asyncio.Future[Any]] = {live.ready, talk}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(watch, timeout=wall_s, return_when=asyncio.FIRST_COMPLETED)
            if not talk.done() and not live.done.done():
                late = True
                live.interrupt()
                await asyncio.wait(watch, timeout=_AFTER_INTERRUPT_S, return_when=asyncio.FIRST_COMPLETED)
            return (talk.result() if talk.done() else None), late
        finally:
            talk.cancel()

    async def _talk(self, cell: str) -> dict[str, Any] | None:
        assert self._socket is not None
        data = cell.encode("utf-8", "replace")
        try:
            await self._loop.sock_sendall(self._socket, len(data).to_bytes(4, "big") + data)
            answer = await self._loop.sock_recv(self._socket, _ANSWER_CAP)  # whole, nearly always
            size = int.from_bytes((await self._at_least(answer, 4))[:4], "big")
            said = json.loads((await self._at_least(answer, 4 + size))[4:]) if size <= _ANSWER_CAP else None
        except (OSError, EOFError, ValueError, RecursionError):
            return None
        known = isinstance(said, dict) and isinstance(said.get("ending"), str) and said["ending"] in _ENDINGS
        return said if known else None

    async def _at_least(self, data: bytes, size: int) -> bytes:
        """`data` and what else has to come for so many bytes. Raises EOFError if it does not."""
        assert self._socket is not None
        while len(data) < size:
            part = await self._loop.sock_recv(self._socket, _ANSWER_CAP)
            if not part:
                raise EOFError
            data += part
        return data

    async def _judge(self, said: dict[str, Any] | None, late: bool, wall_s: float) -> CellResult:
        live = self._live
        assert live is not None
        if said is not None and said["ending"] != "exit":
            live.stdout.drain()
            live.stderr.drain()
        if said is None or live.overflowed or live.done.done() or said["ending"] == "exit":
            return await self._end(live, late, wall_s, exited=said is not None)
        (stdout, cut_out), (stderr, cut_err) = live.stdout.take(), live.stderr.take()
        self._rest()
        return CellResult(
            status="timeout" if late else _ENDINGS[said["ending"]],
            stdout=stdout,
            stderr=stderr,
            truncated=cut_out or cut_err,
            wall_s=wall_s,
            error=str(said.get("error", ""))[:200],
            tier=self.pool.tier,
        )

    async def _end(self, live: LiveRun, late: bool, wall_s: float, *, exited: bool) -> CellResult:
        """The session is over with this cell. A process that has said that it leaves gets a moment for it."""
        if not exited:
            await asyncio.wait({live.done}, timeout=0.0 if late else _LAST_WORDS_S)
        if not exited and not live.done.done():
            live.kill("session")
        await asyncio.wait({live.done}, timeout=_LAST_WORDS_S)
        ended = self.lost = self.pool.result(live, self.limits)
        self.close()
        status, error = _verdict(live, ended, late=late, exited=exited)
        return CellResult(
            status=status,
            stdout=ended.stdout,
            stderr=ended.stderr,
            truncated=ended.truncated,
            wall_s=wall_s,
            error=error,
            lost=True,
            tier=self.pool.tier,
        )

    def _rest(self) -> None:
        if self._idle_s is not None:
            self._idle = self._loop.call_later(self._idle_s, self._expire)

    def _expire(self) -> None:
        self.lost = RunResult(
            "timeout", tier=self.pool.tier, backend=self.pool.tier, error=f"idle for {self._idle_s} s"
        )
        self.close()


def _verdict(live: LiveRun, ended: RunResult, *, late: bool, exited: bool) -> tuple[Status, str]:
    """Of the cell with which a session ended. That its process ended well is no success of the cell."""
    if late:
        return "timeout", "it did not end when interrupted"
    if live.ending is None:
        return (
            ("infra_error", live.trouble)
            if live.trouble
            else ("error", "exit" if exited else "its answer made no sense")
        )
    if live.ending.killed == "session":
        return "error", "its answer made no sense"
    if ended.status == "ok":
        return "error", "exit" if exited else "its process ended"
    return ended.status, ended.error
