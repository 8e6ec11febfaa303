"""Asking servers until one answers: whose turn it is, connections, and what each kind of failure means.

In: servers, and a question. Out: the answer of the first that gives one, or in words why none did. It knows no
programs and no results.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..result import SandboxError
from . import http, wire
from .address import Server

Ask = Callable[[Server, float], Awaitable[tuple[int, Mapping[str, str], Any]]]

_CONNECT_S = 5.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0  # for a server that has failed; doubles with each time in a row
_MARGIN_S = 1.0  # that the server has more than the work may take


class Asker:
    """Asks the least busy of `servers` first. `attempts`: failures after which a question is given up."""

    def __init__(
        self,
        servers: Sequence[Server],
        token: str,
        tls: ssl.SSLContext | None,
        silence_s: float,
        cap: int,
        attempts: int,
    ) -> None:
        if any(not char.isprintable() or char.isspace() for char in token) or not token.isascii() or not token:
            raise ValueError("the token is empty or has characters that do not travel in a header")
        self.servers = servers
        self._token, self._silence_s, self._cap, self._attempts = token, silence_s, cap, attempts
        self._tls = tls or (ssl.create_default_context() if any(s.address.secure for s in servers) else None)

    async def somewhere(self, ask: Ask, well: int, within_s: float) -> Any:
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
                why = f"{server} answers {status}: {error_of(said)}"
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

    async def open_line(self, path: str, body: bytes, within_s: float) -> Line:
        """A connection that belongs to a session from now on. Raises SandboxError if no server gives one."""

        async def ask(server: Server, left_s: float) -> tuple[int, Mapping[str, str], Any]:
            reader, writer = await self._connect(server)
            try:
                with suppress(ConnectionError):
                    await self._send(writer, server, "POST", path, body, "", upgrade="sandbox-session")
                status, headers, said = await http.read_answer(reader, self._silence_s, self._cap)
            except BaseException:
                writer.transport.abort()
                raise
            if status != http.SWITCHED:
                writer.transport.abort()
                return status, headers, said
            return status, headers, Line(server, reader, writer, self._silence_s, self._cap)

        found = await self.somewhere(ask, http.SWITCHED, within_s)
        if isinstance(found, Line):
            return found
        raise SandboxError(f"no session can be had: {found}")

    async def _connect(self, server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = server.address
        tls = self._tls if address.secure else None
        async with asyncio.timeout(_CONNECT_S):
            return await asyncio.open_connection(address.host, address.port, limit=http.STREAM_BYTES, ssl=tls)

    async def exchange(
        self, server: Server, method: str, path: str, body: bytes, key: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request on a connection of its own. Raises OSError or TimeoutError if there is no answer."""
        server.under_way += 1
        try:
            reader, writer = await self._connect(server)
            try:
                with suppress(ConnectionError):  # it may have answered and closed before it had read all
                    await self._send(writer, server, method, path, body, key)
                return await http.read_answer(reader, self._silence_s, self._cap)
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


def error_of(body: bytes) -> str:
    """What a refusal says for people."""
    with suppress(ValueError):
        return str(wire.decode_answer(body).get("error", ""))[:300]
    return "no reason is given"


def _seconds(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    seconds = float(text) if text.isascii() and text.isdigit() else 1.0
    return min(seconds, 60.0) * random.uniform(0.8, 1.2)  # not all at once
