"""The client: a pool whose sandboxes are other machines'. The same calls as of SandboxPool, the same results.

In: addresses of servers, a token, programs. Out: results; `infra_error` where no server could be had. A run may be
tried on another server without harm, for it can touch nothing but its own sandbox; its key keeps one server from doing
it twice.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..limits import Limits
from ..result import STRENGTH, CallResult, RunResult, SandboxError, TierUnavailable
from . import http, wire
from .address import Address, Server
from .session import HttpSession

Ask = Callable[[Server, float], Awaitable[tuple[int, Mapping[str, str], Any]]]

_CONNECT_S = 5.0
_SILENCE_S = 10.0  # a server that works says so every second
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0  # for a server that has failed; doubles with each time in a row
_IDLE_S = 3600.0
_MARGIN_S = 1.0  # that the server has more than the work may take


class HttpPool:
    """Use it as `async with HttpPool(["http://10.0.0.5:8023"], token=...) as pool: result = await pool.run(code)`.

    Args:
        addresses: of the servers, `http://host:port` or `https://host:port`.
        minimum: the weakest tier that is accepted, of each single result.
        limits: the default ones.
        patience_s: how long a run may wait for its turn, beyond its own `wall_s`.
        attempts: servers that may fail on one run before it is given up; a server that is only busy does not count.
        running: requests at once.
        tls: for https; the system's authorities if None.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        token: str,
        minimum: str = "landlock",
        limits: Limits | None = None,
        patience_s: float = 60.0,
        attempts: int = 6,
        running: int = 256,
        silence_s: float = _SILENCE_S,
        answer_bytes: int = 64 << 20,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if minimum not in STRENGTH:
            raise ValueError(f"{minimum!r} is no tier; there are: {', '.join(STRENGTH)}")
        if any(not char.isprintable() or char.isspace() for char in token) or not token.isascii() or not token:
            raise ValueError("the token is empty or has characters that do not travel in a header")
        self.servers = [Server(Address.parse(each)) for each in wire.listed(addresses)]
        if not self.servers:
            raise ValueError("there is no address of a server")
        self.limits = limits or Limits()
        self.tier = ""  # the weakest of those that answered at the start
        self._minimum, self._token = minimum, token
        self._patience_s, self._attempts, self._silence_s = patience_s, attempts, silence_s
        self._answer_bytes = answer_bytes
        self._room = asyncio.Semaphore(running)
        self._tls = tls or (ssl.create_default_context() if any(s.address.secure for s in self.servers) else None)
        self._open = False

    async def __aenter__(self) -> HttpPool:
        """Asks every server; those that do not answer are tried again later.

        Raises:
            SandboxError: none answers, or one refuses the token.
            TierUnavailable: one that answers is weaker than the minimum.
        """
        found = await asyncio.gather(*(self._look(server) for server in self.servers))
        tiers = [each for each in found if not isinstance(each, str)]
        if not tiers:
            raise SandboxError("no server can be had: " + "; ".join(str(each) for each in found))
        self.tier = min((each["tier"] for each in tiers), key=lambda tier: STRENGTH.get(tier, -1))
        if not self.strong(self.tier):
            raise TierUnavailable(f"a server has tier {self.tier!r}, and at least {self._minimum!r} is wanted")
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False

    async def _look(self, server: Server) -> dict[str, Any] | str:
        """Its status, or why there is none."""
        try:
            status, _, body = await self._exchange(server, "GET", "/v1/status", b"", "")
            if status == 401:
                raise SandboxError(f"{server}: {_error(body)}")
            said = wire.decode_answer(body)
            if status == 200 and isinstance(said.get("tier"), str):
                return said
            why = f"{server} answers {status}: {_error(body)}"
        except (OSError, TimeoutError, ValueError) as error:
            why = f"{server}: {error or type(error).__name__}"
        server.failed(why, _PAUSE_S)
        return why

    async def run(
        self,
        code: str,
        *,
        stdin: str | bytes = b"",
        files: Mapping[str, str | bytes] | None = None,
        argv: Sequence[str] = (),
        collect_files: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> RunResult:
        """As SandboxPool.run. Cancelling the call ends the run."""
        arguments = {"code": code, "stdin": stdin, "files": files, "argv": wire.listed(argv)}
        return await self._run("run", {**arguments, "collect_files": wire.listed(list(collect_files))}, limits)

    async def execute(
        self,
        command: Sequence[str],
        *,
        stdin: str | bytes = b"",
        files: Mapping[str, str | bytes] | None = None,
        collect_files: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> RunResult:
        """As SandboxPool.execute."""
        arguments = {"command": wire.listed(command), "stdin": stdin, "files": files}
        return await self._run("execute", {**arguments, "collect_files": list(collect_files)}, limits)

    async def call(
        self,
        code: str,
        function: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
    ) -> CallResult:
        """As SandboxPool.call."""
        given = {"code": code, "function": function, "args": list(args), "kwargs": dict(kwargs or {}), "files": files}
        said = await self._ask("call", given, limits or self.limits)
        if isinstance(said, RunResult):
            return CallResult(None, said)
        run = self._result(said)
        return CallResult(said.get("value") if run.ok else None, run)

    async def _run(self, verb: str, arguments: Mapping[str, Any], limits: Limits | None) -> RunResult:
        said = await self._ask(verb, arguments, limits or self.limits)
        return said if isinstance(said, RunResult) else self._result(said)

    def _result(self, said: Mapping[str, Any]) -> RunResult:
        try:
            run = wire.decode_run(said.get("run"), "http")
        except ValueError as error:
            return _broken(f"a server's answer makes no sense: {error}")
        if not self.strong(run.tier):
            return _broken(f"a server ran it on tier {run.tier!r}, and at least {self._minimum!r} is wanted")
        return run

    def strong(self, tier: str) -> bool:
        """Whether the tier is as strong as was demanded."""
        return STRENGTH.get(tier, -1) >= STRENGTH[self._minimum]

    async def _ask(self, verb: str, arguments: Mapping[str, Any], limits: Limits) -> dict[str, Any] | RunResult:
        """What a server answered, or why none did."""
        if not self._open:
            return _broken("the pool is not open: use it inside `async with`")
        work = wire.encode_work(verb, arguments, limits)
        async with self._room:
            return await self._try(verb, work, limits.wall_s + self._patience_s)

    async def _try(self, verb: str, work: dict[str, Any], within_s: float) -> dict[str, Any] | RunResult:
        key = uuid.uuid4().hex

        async def ask(server: Server, left_s: float) -> tuple[int, Mapping[str, str], Any]:
            body = json.dumps({**work, "deadline_s": left_s}).encode()
            status, headers, said = await self._exchange(server, "POST", f"/v1/{verb}", body, key)
            return status, headers, wire.decode_answer(said) if status == 200 else said

        found = await self._somewhere(ask, 200, within_s)
        return _broken(found) if isinstance(found, str) else found

    async def _somewhere(self, ask: Ask, well: int, within_s: float) -> Any:
        """What the first server answers that answers with the status `well`, or in words why none did."""
        failures, ends, why = 0, time.monotonic() + within_s, ""
        while (left := ends - time.monotonic()) > 0 and failures < self._attempts:
            server = min(self.servers, key=Server.order)
            if (rest := server.rests_until - time.monotonic()) > 0:
                await asyncio.sleep(min(rest, left))
                continue
            try:
                async with asyncio.timeout(left + _MARGIN_S):
                    status, headers, said = await ask(server, left)
                if status == well:
                    server.well()
                    return said
                why = f"{server} answers {status}: {_error(said)}"
            except (OSError, TimeoutError, ValueError) as error:
                why, status, headers = f"{server}: {error or 'it does not answer'}", 0, {}
            if status in (429, 503):
                server.busy(_seconds(headers))
            elif status == 504 or 400 <= status < 500:
                return why  # another server would say the same
            else:
                failures += 1
                server.failed(why, _pause_s(server.failures) * random.uniform(0.5, 1.5))
        return f"no server has done it within {within_s:g} s and {failures} failures; the last: {why}"

    def session(
        self,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
        idle_s: float | None = None,
    ) -> HttpSession:
        """As SandboxPool.session. It lives on one server, and is lost with it. After an hour without a cell it ends, if
        `idle_s` says nothing else."""
        return HttpSession(self, files or {}, limits or self.limits, _IDLE_S if idle_s is None else idle_s)

    async def open_line(self, path: str, body: bytes) -> Line:
        """A connection that belongs to a session from now on. Raises SandboxError if no server gives one."""

        async def ask(server: Server, left_s: float) -> tuple[int, Mapping[str, str], Any]:
            reader, writer = await self._connect(server)
            try:
                with suppress(ConnectionError):
                    await self._send(writer, server, "POST", path, body, "", upgrade="sandbox-session")
                status, headers, said = await http.read_answer(reader, self._silence_s, self._answer_bytes)
            except BaseException:
                writer.transport.abort()
                raise
            if status != http.SWITCHED:
                writer.transport.abort()
                return status, headers, said
            return status, headers, Line(server, reader, writer, self._silence_s, self._answer_bytes)

        if not self._open:
            raise SandboxError("the pool is not open: use it inside `async with`")
        found = await self._somewhere(ask, http.SWITCHED, self._patience_s)
        if isinstance(found, Line):
            return found
        raise SandboxError(f"no session can be had: {found}")

    async def _connect(self, server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = server.address
        tls = self._tls if address.secure else None
        async with asyncio.timeout(_CONNECT_S):
            return await asyncio.open_connection(address.host, address.port, limit=http.STREAM_BYTES, ssl=tls)

    async def _exchange(
        self, server: Server, method: str, path: str, body: bytes, key: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request on a connection of its own. Raises OSError or TimeoutError if there is no answer."""
        server.under_way += 1
        try:
            reader, writer = await self._connect(server)
            try:
                with suppress(ConnectionError):  # it may have answered and closed before it had read all
                    await self._send(writer, server, method, path, body, key)
                return await http.read_answer(reader, self._silence_s, self._answer_bytes)
            finally:
                writer.transport.abort()  # at once: the server takes it as the end of the run
        finally:
            server.under_way -= 1

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        server: Server,
        method: str,
        path: str,
        body: bytes,
        key: str,
        upgrade: str = "",
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {server.address.netloc}", f"Authorization: Bearer {self._token}"]
        lines += [f"Content-Length: {len(body)}", "Sandbox-Beats: yes"]
        lines += ["Connection: Upgrade", f"Upgrade: {upgrade}"] if upgrade else ["Connection: close"]
        lines += [f"Idempotency-Key: {key}"] if key else []
        writer.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n")
        for at in range(0, len(body), http.STREAM_BYTES):
            writer.write(body[at : at + http.STREAM_BYTES])
            async with asyncio.timeout(self._silence_s):
                await writer.drain()


class Line:
    """A connection that stays, and counts as work of its server until it is closed."""

    def __init__(
        self,
        server: Server,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        silence_s: float,
        cap: int,
    ) -> None:
        self.server, self.reader, self.writer, self.silence_s, self.cap = server, reader, writer, silence_s, cap
        server.under_way += 1

    def close(self) -> None:
        """Once."""
        self.server.under_way -= 1
        self.writer.transport.abort()


def _pause_s(failures: int) -> float:
    return min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0 ** min(failures, 10))


def _broken(why: str) -> RunResult:
    return RunResult("infra_error", tier="", backend="http", error=why)


def _error(body: bytes) -> str:
    with suppress(ValueError):
        return str(wire.decode_answer(body).get("error", ""))[:300]
    return "no reason is given"


def _seconds(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    seconds = float(text) if text.isascii() and text.isdigit() else 1.0
    return min(seconds, 60.0) * random.uniform(0.8, 1.2)  # not all at once
