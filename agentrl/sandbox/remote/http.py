"""The little of HTTP/1.1 that is spoken here: one request for a connection, with a length. All else is refused.

A connection is not used again: a run costs milliseconds and a connection in a data centre a fraction of one, and with
no second request there is no smuggling, no pipelining, and no doubt which of them a broken connection has lost.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

HEAD_BYTES = 1 << 14
STREAM_BYTES = 1 << 16
_HEADERS = 64
SWITCHED = 101
_REQUEST = re.compile(rb"([A-Z]{1,10}) (/[!-~]{0,1000}) HTTP/1\.1")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [ -~]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}):[ \t]*([\t -~\x80-\xff]*)")
_LENGTH = re.compile(r"[0-9]{1,12}")


class Refused(Exception):
    """An answer that is not 200. `text` is for people."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, dict(headers or {})


@dataclass(frozen=True)
class Head:
    """A request's first part. Names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    length: int  # bytes of the body that follows


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Raises Refused for what is not spoken here, EOFError where nothing came, ConnectionError."""
    line, headers = await _read_lines(reader)
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise Refused(400, "the first line is no request of HTTP/1.1")
    if "transfer-encoding" in headers:
        raise Refused(501, "send a Content-Length, no Transfer-Encoding")
    if "expect" in headers:
        raise Refused(417, "Expect is not spoken here")
    if "host" not in headers:
        raise Refused(400, "the Host header is missing")
    length = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise Refused(400, "the Content-Length is no number")
    return Head(match[1].decode(), match[2].decode(), headers, int(length))


async def _read_lines(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str]]:
    try:
        data = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Refused(431, f"the headers have more than {HEAD_BYTES} bytes") from None
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise EOFError from None
        raise Refused(400, "the connection was closed in the middle of the headers") from None
    if len(data) > HEAD_BYTES:
        raise Refused(431, f"the headers have more than {HEAD_BYTES} bytes")
    first, *lines = data[:-4].split(b"\r\n")
    if len(lines) > _HEADERS:
        raise Refused(431, f"there are more than {_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        name = match[1].decode().lower() if match else ""
        if match is None or name in headers:
            raise Refused(400, "a header is malformed or stands there twice")
        headers[name] = match[2].decode("latin-1").rstrip(" \t")
    return first, headers


async def read_body(reader: asyncio.StreamReader, length: int, cap: int) -> bytes:
    """Raises Refused if it is too long or not there."""
    if length > cap:
        raise Refused(413, f"the body has {length} bytes; at most {cap} are taken")
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise Refused(400, f"of {length} bytes of the body {len(error.partial)} came") from None


async def read_answer(reader: asyncio.StreamReader, silence_s: float, cap: int) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers, body) of the final answer. Interim ones (1xx) only tell that the server lives, but
    for 101, after which the connection is no longer HTTP.

    Raises:
        TimeoutError: nothing came for `silence_s` seconds.
        ConnectionError: it is no answer, or not a whole one.
    """
    try:
        while True:
            async with asyncio.timeout(silence_s):
                line, headers = await _read_lines(reader)
            match = _STATUS.fullmatch(line)
            if match is None:
                raise ConnectionError("what answers there does not speak HTTP")
            if int(match[1]) == SWITCHED:
                return SWITCHED, headers, b""
            if int(match[1]) >= 200:
                break
        length = headers.get("content-length", "")
        if not _LENGTH.fullmatch(length) or int(length) > cap:
            raise ConnectionError(f"its answer has a length of {length or 'nothing'!r}; at most {cap} bytes are taken")
        body = bytearray()
        while len(body) < int(length):
            async with asyncio.timeout(silence_s):
                part = await reader.read(min(STREAM_BYTES, int(length) - len(body)))
            if not part:
                raise ConnectionError("the connection was closed in the middle of the answer")
            body += part
        return int(match[1]), headers, bytes(body)
    except EOFError:
        raise ConnectionError("the connection was closed without an answer") from None
    except Refused as error:
        raise ConnectionError(f"its answer is malformed: {error.text}") from None


def answer(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> bytes:
    return answer_bytes(status, json.dumps(body).encode(), headers)


def answer_bytes(status: int, content: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sandbox-session\r\nConnection: Upgrade\r\n\r\n"
