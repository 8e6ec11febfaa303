"""One HTTP server and how it is asked: JSON in, JSON out, a deadline on everything, one kind of error.

What comes in: a method, a path and a body. What goes out: the answer as Python reads JSON, or an `HttpError` that says
who was asked what and what came back. Retries nothing and knows nothing of tokens or messages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrl.errors import MissingDependencyError

try:
    import aiohttp
except ImportError as error:
    raise MissingDependencyError(
        "engines that speak HTTP need aiohttp, which is not installed: pip install 'agentrl[server]'"
    ) from error

CONNECT_DEADLINE_S = 10.0
_IDLE_S = 2.0  # after which a connection is not used again: servers close theirs after 5 s, some while we send
_TRANSIENT = frozenset({408, 425, 429})  # beside 500 and above: the same request may be answered later
_MOST_WAIT_S = 60.0  # that a server may ask for before another try
_SHOWN_CHARS = 300  # of an answer, in an error


class HttpError(Exception):
    """Who was asked what, and what came back.

    `transient` tells that another try, or another server, may do better; a refused request will be refused again.
    """

    def __init__(self, text: str, *, transient: bool, status: int | None = None, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.transient = transient
        self.status = status
        self.wait_s = wait_s  # before another try, as the server asks for


class Client:
    """Asks one server. Connections are opened when they are needed, and closed by `close`.

    Args:
        url: such as "http://gpu7:8000"; of a server behind a Unix socket, its name in errors.
        socket: the Unix socket, where there is one.
        api_key: sent as a bearer token; "": none.
        proxies: use those that the environment names; for endpoints on the internet.
    """

    def __init__(self, url: str, *, socket: Path | None = None, api_key: str = "", proxies: bool = False) -> None:
        self.url = url.rstrip("/")
        self._base = "http://localhost" if socket else self.url
        self._socket = socket
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._proxies = proxies
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self, method: str, path: str, body: object = None, *, deadline_s: float, query: Mapping[str, str] | None = None
    ) -> Any:
        """The answer, read as JSON; an empty one is None.

        Raises:
            HttpError: no whole answer within `deadline_s`, a status above 299, or an answer that is not JSON.
        """
        answer = await self._exchange(method, path, body, query, deadline_s)
        if not answer:
            return None
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            asked = f"{method} {self.url}{path}"
            raise HttpError(f"{asked} answered what is not JSON: {_shown(answer)}", transient=True) from error

    async def text(self, path: str, *, deadline_s: float) -> str:
        """GET a page of text; raises as `ask` does."""
        answer = await self._exchange("GET", path, None, None, deadline_s)
        return answer.decode(errors="replace")

    async def _exchange(
        self, method: str, path: str, body: object, query: Mapping[str, str] | None, deadline_s: float
    ) -> bytes:
        asked = f"{method} {self.url}{path}"
        options: dict[str, Any] = {} if body is None else {"json": body}
        try:
            async with (
                asyncio.timeout(deadline_s),
                self._open().request(method, self._base + path, params=query, **options) as response,
            ):
                status, answer, after = response.status, await response.read(), response.headers.get("Retry-After", "")
        except TimeoutError as error:
            raise HttpError(f"{asked} did not answer within {deadline_s:g} s", transient=True) from error
        except aiohttp.InvalidURL as error:
            raise HttpError(f"{asked}: {self.url!r} is no address of a server", transient=False) from error
        except (aiohttp.ClientError, OSError) as error:
            told = f"{type(error).__name__}: {error}".rstrip(": ")
            raise HttpError(f"{asked} broke off: {told}", transient=True) from error
        if status > 299:
            transient = status in _TRANSIENT or status >= 500
            wait_s = min(float(after), _MOST_WAIT_S) if after.isdecimal() else 0.0
            told = f"{asked} answered {status}: {_shown(answer)}"
            raise HttpError(told, transient=transient, status=status, wait_s=wait_s)
        return answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector  # without a limit: the caller bounds how many run at once
            if self._socket is not None:
                connector = aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=_IDLE_S)
            else:
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE_S)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, timeout=timeout, trust_env=self._proxies
            )
        return self._session

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _shown(answer: bytes) -> str:
    text = " ".join(answer.decode(errors="replace").split())
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")
