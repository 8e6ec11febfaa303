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

from .jail.cells import FORK
from .jail.order import MARK, Order, encode_payload
from .keeping import Keeping
from .limits import Limits
from .live import LiveRun
from .result import CellResult, RunResult, SandboxError, SessionLost, Status, starting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from .bounds import Place
    from .pool import SandboxPool

_AFTER_INTERRUPT_S = 1.0  # for a cell to end after control-C
_LAST_WORDS_S = 2.0  # for a process that has answered nonsense, or says that it leaves, to end by itself
_FORK_S = 20.0
_MARK_S = 0.5  # within which cells may share one mark of where they begin
_ANSWER_CAP = 1 << 16
_ENDINGS: dict[str, Status] = {"ok": "ok", "error": "error", "interrupted": "error", "exit": "error"}
_ANSWERS = (*_ENDINGS, "forked")


class Session:
    """Made by `SandboxPool.session`. One cell at a time.

    `limits.wall_s` is for each cell; `limits.cpu_s` for each cell with all that goes on until the next one begins, give
    or take half a second, and in proportion more for a cell that is given more than `wall_s`; all else for the session.
    """

    def __init__(self, pool: SandboxPool, limits: Limits, files: Mapping[str, bytes], idle_s: float | None) -> None:
        self.pool, self.limits = pool, limits
        self.lost: RunResult | None = None
        self._files, self._idle_s = files, idle_s
        self._live: LiveRun | None = None
        self._keeping: Keeping | None = None
        self._place: Place | None = None
        self._socket: socket.socket | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._marked = 0.0, 0.0
        self._cell_runs = self._forked = False
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Session:
        """Waits for a place among the pool's sessions. Raises SandboxError if there is no worker for it."""
        if self._forked:
            return self
        self._place = await self.pool.place_for_session(self.limits)
        try:
            if self.pool.features.get("forks"):
                self._keeping = Keeping(self.pool)
                await self._keeping.open(self.limits)
            await self._begin(self.pool.order("cells", self.limits), encode_payload({}, dict(self._files)))
        except BaseException:
            self.close()
            raise
        self._rest()
        return self

    async def _begin(self, order: Order, payload: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        with starting("the session"):
            self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            self._live = await self.pool.launch(
                order, self.limits, payload, spare=theirs.fileno(), worker=self._keeping
            )

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
        if self._keeping is not None:
            self._keeping.leave()
            self._keeping = None
        if self._place is not None:
            self._place.leave()
            self._place = None

    async def run(self, cell: str, *, wall_s: float | None = None) -> CellResult:
        """Runs a cell and returns what it wrote; the value of a last expression is shown as at a prompt.

        At its limit it is interrupted as by control-C, and a second later killed. Raises SessionLost if the session
        has ended before this cell, by a limit, idleness, `exit()` or `close`.
        """
        async with self._turn:
            live = self._at_hand()
            began = time.monotonic()
            wall_s = wall_s or self.limits.wall_s
            self._mark(live, began, wall_s)
            self._cell_runs = True
            self.pool.meter.cells_running += 1
            try:
                said, late = await self._ask(live, _framed(cell), wall_s)
                result = await self._judge(said, late, time.monotonic() - began)
            except BaseException:
                self.close()  # cancelled in the middle: what the process would say next is not known
                raise
            finally:
                self._cell_runs = False
                self.pool.meter.cells_running -= 1
            self.pool.meter.cell(result.status)
            return result

    def _mark(self, live: LiveRun, now: float, wall_s: float) -> None:
        """Tells where a cell begins, and how much processor time it may use with what goes on after it."""
        cpu_s = self.limits.cpu_s * max(1.0, wall_s / self.limits.wall_s)
        if now > self._marked[0] + _MARK_S or cpu_s != self._marked[1]:
            self._marked = now, cpu_s
            live.tell(MARK + str(cpu_s).encode())

    def _at_hand(self) -> LiveRun:
        """Raises SessionLost if it has ended; else it is not idle."""
        if self._live is not None and self._live.done.done() and self._live.ending is not None:
            self.lost = self.pool.result(self._live, self.limits)
            self.close()
        if self._live is None:
            why = (self.lost.error or "its process ended") if self.lost else "closed"
            raise SessionLost(f"the session has ended: {why}", self.lost)
        if self._idle:
            self._idle.cancel()
        return self._live

    async def fork(self) -> Session:
        """A session that goes on from here by itself, with copies of the variables and of the working folder, /tmp and
        /dev/shm. Close it, or use it as `async with await session.fork() as branch:`.

        What is a process or a thread of its own stays with this session; a file that is open is shared. The pool's
        room is not waited for. Raises SandboxError if a cell is running, if there is no place for another session, or
        where the tier allows no forks; SessionLost if this session has ended. Cancelled, it ends this session too.
        """
        if self._cell_runs:
            raise SandboxError("a cell is running in this session: fork it between cells")
        async with self._turn:
            live, keeping = self._at_hand(), self._keeping
            branch = Session(self.pool, self.limits, {}, self._idle_s)
            try:
                if keeping is None:
                    raise SandboxError(
                        f"a session of tier {self.pool.tier!r} cannot be forked here: that takes tier `zygote`, and a "
                        "machine that allows runs a /proc of their own"
                    )
                branch._place = self.pool.place_for_fork(self.limits)
                branch._keeping, branch._forked = keeping, True
                order = self.pool.order("branch", self.limits, source=live.order.name)
                await branch._begin(order, b"")
                await self._split(live, branch)
            except BaseException:
                branch.close()
                raise
            finally:
                self._rest()
        branch._rest()
        return branch

    async def _split(self, live: LiveRun, branch: Session) -> None:
        """Raises SandboxError if there is no branch after it."""
        assert branch._live is not None
        try:
            said, late = await self._ask(live, FORK.to_bytes(4, "big"), _FORK_S)
        except BaseException:
            self.close()  # as with a cell: what the process would say next is not known
            raise
        if said is None or late or live.done.done():
            await self._end(live, late, 0.0, exited=False)
            raise SessionLost("the session has ended in the middle of its fork", self.lost)
        if said["ending"] != "forked":
            raise SandboxError(f"the session could not be forked: {str(said.get('error', ''))[:200]}")
        await branch._live.ready
        if branch._live.trouble or branch._live.done.done():
            branch._live.stderr.drain()
            why = f"{branch._live.trouble or 'the branch has ended'} {branch._live.stderr.take()[0]}"
            raise SandboxError(f"the session could not be forked: {why.strip()[:300]}")

    async def _ask(self, live: LiveRun, words: bytes, wall_s: float) -> tuple[dict[str, Any] | None, bool]:
        """(answer, or None if there was none that makes sense; whether the limit passed)."""
        talk = asyncio.ensure_future(self._talk(words))
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

    async def _talk(self, words: bytes) -> dict[str, Any] | None:
        assert self._socket is not None
        try:
            await self._loop.sock_sendall(self._socket, words)
            answer = await self._loop.sock_recv(self._socket, _ANSWER_CAP)  # whole, nearly always
            size = int.from_bytes((await self._at_least(answer, 4))[:4], "big")
            said = json.loads((await self._at_least(answer, 4 + size))[4:]) if size <= _ANSWER_CAP else None
        except (OSError, EOFError, ValueError, RecursionError):
            return None
        known = isinstance(said, dict) and isinstance(said.get("ending"), str) and said["ending"] in _ANSWERS
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
        if said is not None and said["ending"] == "forked":
            said = None  # nobody has asked for that
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
        if self._idle:
            self._idle.cancel()
        if self._idle_s is not None and self._live is not None:
            self._idle = self._loop.call_later(self._idle_s, self._expire)

    def _expire(self) -> None:
        self.lost = RunResult(
            "timeout", tier=self.pool.tier, backend=self.pool.tier, error=f"idle for {self._idle_s} s"
        )
        self.close()


def _framed(cell: str) -> bytes:
    data = cell.encode("utf-8", "replace")
    return len(data).to_bytes(4, "big") + data


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
