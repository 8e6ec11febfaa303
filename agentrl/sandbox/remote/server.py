"""The server: a pool of sandboxes behind HTTP, for those who know the token.

In: requests as `wire` has them. Out: results, or a refusal that says whether and when to come back. A client that goes
away takes its run with it. Built on asyncio streams, as the pool is: a run, its deadline and its client's absence are
awaited in one place, and a thousand waiting clients cost no thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ..limits import Limits
from ..pool import SandboxPool
from . import http, wire
from .dialogue import serve_dialogue
from .http import Head, Refused
from .jobs import Job, Jobs
from .session import BEAT_S, serve_session

_HEAD_S, _BODY_S, _ANSWER_S = 10.0, 60.0, 60.0  # for a client to send, and to take
_LINGER_S, _LINGER_BYTES = 2.0, 1 << 24  # for a client that still sends when it has been refused
_MAX_KEY = 200
_STAYING = ("session", "dialogue")  # what keeps its connection


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """`ceiling`: the most that a request's limits may be. Sizes in bytes, times in seconds."""

    token: str
    running: int  # runs at once
    queue: int = 256  # requests that may wait
    starting: int = 8  # runs whose walls are being built
    sessions: int = 64  # at once, beside the runs
    body_bytes: int = 16 << 20
    connections: int = 2048
    longest_s: float = 600.0  # of a deadline
    drain_s: float = 20.0  # for runs to end when the server is asked to stop
    ceiling: Limits = field(default_factory=lambda: Limits(wall_s=120.0, cpu_s=240.0))


class SandboxServer:
    """`await start(...)`, then `await close()`."""

    def __init__(self, pool: SandboxPool, settings: ServerSettings) -> None:
        if len(settings.token) < 16:
            raise ValueError("the token has less than 16 characters: make one with `openssl rand -hex 32`")
        self.pool, self.settings = pool, settings
        self.jobs = Jobs(settings.running, settings.queue)
        self.addresses: Sequence[tuple[str, int]] = ()
        self._token = hashlib.sha256(settings.token.encode()).digest()
        self._sessions: set[asyncio.Task[Any]] = set()  # handlers that have become sessions
        self._handlers: set[asyncio.Task[Any]] = set()
        self._unasked: set[asyncio.Task[Any]] = set()  # of them, those whose clients have not asked for anything yet

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Raises OSError if it cannot listen there."""
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=http.STREAM_BYTES, backlog=1024, ssl=tls
        )
        self.addresses = [each.getsockname()[:2] for each in self._server.sockets]

    async def close(self) -> None:
        """No new requests; what runs may end within `drain_s`, and sessions end after it."""
        self._server.close()
        await self.jobs.close(self.settings.drain_s)
        for task in (*self._unasked, *self._sessions):
            task.cancel()
        if self._handlers:
            await asyncio.wait(tuple(self._handlers), timeout=_LINGER_S)
        for task in tuple(self._handlers):
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = _this_task()
        self._handlers.add(task)
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client is gone or too slow, or the server stops; nobody awaits this task
        finally:
            self._handlers.discard(task)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        early = True
        try:
            if len(self._handlers) > self.settings.connections:
                raise Refused(503, "there are too many connections", {"Retry-After": "1"})
            head = await self._head(reader)
            content, early = await self._answer(head, reader, writer), False
        except Refused as refusal:
            content = http.answer(refusal.status, {"error": refusal.text}, refusal.headers)
        except (ConnectionError, EOFError, TimeoutError):
            raise
        except Exception as error:  # a boundary: a fault of ours is an answer that is tried elsewhere
            content = http.answer(500, {"error": f"{type(error).__name__}: {error}"[:500]})
        if not content:
            return  # it was a session, which has had the connection for itself
        async with asyncio.timeout(_ANSWER_S):
            writer.write(content)
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        if early:
            await _take_rest(reader)  # a connection that is closed with bytes unread loses the answer
        elif not writer.can_write_eof():
            writer.close()
            await writer.wait_closed()

    async def _head(self, reader: asyncio.StreamReader) -> Head:
        task = _this_task()
        self._unasked.add(task)
        try:
            async with asyncio.timeout(_HEAD_S):
                return await http.read_head(reader)
        finally:
            self._unasked.discard(task)

    async def _answer(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if (head.method, head.path) == ("GET", "/healthz"):
            if self.jobs.closing:
                raise Refused(503, "the server is stopping")
            return http.answer(200, {"status": "ok"})
        self._authorize(head)
        if (head.method, head.path) == ("GET", "/v1/status"):
            return http.answer(200, self._status())
        verb = head.path.removeprefix("/v1/")
        known = (*wire.VERBS, *_STAYING)
        if verb not in known or head.path == verb:
            raise Refused(404, f"there is nothing at this path; POST /v1/{', /v1/'.join(known)}; GET /v1/status")
        if head.method != "POST":
            raise Refused(405, "use POST", {"Allow": "POST"})
        if verb in _STAYING:
            await self._stay(verb, head, reader, writer)
            return b""
        received = asyncio.get_running_loop().time()
        with self.jobs.place():
            return await self._work(verb, head, await self._body(head, reader), received, reader, writer)

    async def _body(self, head: Head, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(_BODY_S):
                return await http.read_body(reader, head.length, self.settings.body_bytes)
        except TimeoutError:
            raise Refused(408, f"the body did not come within {_BODY_S:g} s") from None

    async def _stay(self, verb: str, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.headers.get("upgrade", "").lower() != "sandbox-session":
            raise Refused(426, "a session wants the connection for itself", {"Upgrade": "sandbox-session"})
        if self.jobs.closing:
            raise Refused(503, "the server is stopping", {"Retry-After": "5"})
        if len(self._sessions) >= self.settings.sessions:
            raise Refused(429, f"{len(self._sessions)} sessions are open already", {"Retry-After": "2"})
        task = _this_task()
        self._sessions.add(task)
        try:
            body = await self._body(head, reader)
            await (self._session if verb == "session" else self._dialogue)(body, reader, writer)
        finally:
            self._sessions.discard(task)

    async def _session(self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            opening = wire.decode_opening(body)
        except ValueError as error:
            raise Refused(400, str(error)[:500]) from error
        self._bound(opening.limits)
        longest_s = self.settings.ceiling.wall_s
        await serve_session(self.pool, opening, reader, writer, self.settings.body_bytes, longest_s)

    async def _dialogue(self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            code, limits = wire.decode_dialogue(body)
        except ValueError as error:
            raise Refused(400, str(error)[:500]) from error
        self._bound(limits)
        await serve_dialogue(self.pool, code, limits, reader, writer, self.settings.body_bytes)

    def _bound(self, limits: Limits) -> None:
        if why := wire.above(limits, self.settings.ceiling):
            raise Refused(422, why)

    def _authorize(self, head: Head) -> None:
        scheme, _, token = head.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode()).digest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._token):
            raise Refused(401, "the bearer token is missing or wrong", {"WWW-Authenticate": "Bearer"})

    def _status(self) -> dict[str, Any]:
        return {
            "tier": self.pool.tier,
            "preload": list(self.pool.preload.modules),
            "running": min(self.jobs.inside, self.jobs.running),
            "waiting": self.jobs.waiting,
            "sessions": len(self._sessions),
            "refused": self.jobs.refused,
            "room": {
                "running": self.jobs.running,
                "queue": self.jobs.queue,
                "sessions": self.settings.sessions,
            },
            "ceiling": asdict(self.settings.ceiling),
            "metrics": asdict(self.pool.metrics()),
            "stopping": self.jobs.closing,
        }

    async def _work(
        self,
        verb: str,
        head: Head,
        body: bytes,
        received: float,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        key = head.headers.get("idempotency-key", "")
        if len(key) > _MAX_KEY:
            raise Refused(400, f"the Idempotency-Key has more than {_MAX_KEY} characters")
        try:
            work = wire.decode_work(verb, body)
        except ValueError as error:
            raise Refused(400, str(error)[:500]) from error
        self._bound(work.limits)
        if work.deadline_s > self.settings.longest_s:
            raise Refused(422, f"deadline_s is {work.deadline_s}, and this server allows {self.settings.longest_s:g}")
        job = self.jobs.job(key, _digest(work), lambda: self._do(work), received + work.deadline_s)
        if isinstance(job, bytes):
            return http.answer_bytes(200, job)
        beats = "sandbox-beats" in head.headers
        return http.answer_bytes(200, await _with_client(job, reader, writer, beats=beats))

    async def _do(self, work: wire.Work) -> bytes:
        if work.verb == "call":
            called = await self.pool.call(**work.arguments, limits=work.limits)
            said, run = {"value": called.value, "run": wire.encode_run(called.run)}, called.run
        else:
            run = await getattr(self.pool, work.verb)(**work.arguments, limits=work.limits)
            said = {"run": wire.encode_run(run)}
        if run.status == "infra_error":
            raise Refused(500, f"the sandbox failed: {run.error}"[:500])
        return json.dumps(said).encode()


async def _with_client(job: Job, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, beats: bool) -> bytes:
    """Waits for the job as long as the client does.

    Raises:
        ConnectionError: the client is gone.
        Refused: the job was not done.
    """
    with job.awaited() as task:
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not task.done():
                await asyncio.wait({task, gone}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() and not task.done():
                    if gone.exception() is None and gone.result():
                        raise Refused(400, "there is more than one request in the connection")
                    raise ConnectionResetError("the client is gone")
                if beats and not task.done():
                    writer.write(http.PROCESSING)
            if task.cancelled():
                raise Refused(503, "the server is stopping", {"Retry-After": "5"})
            return task.result()
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await gone


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _digest(work: wire.Work) -> bytes:
    """Of all but the deadline, which another attempt has another of."""
    said = repr((work.verb, sorted(work.arguments.items()), work.limits))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()


async def _take_rest(reader: asyncio.StreamReader) -> None:
    left = _LINGER_BYTES
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_LINGER_S):
            while left > 0 and (part := await reader.read(http.STREAM_BYTES)):
                left -= len(part)
