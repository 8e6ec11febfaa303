"""Real servers for tests: processes that are started, asked in plain bytes, and killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agentrl.sandbox import HttpPool, Limits
from agentrl.sandbox.remote.wire import encode_work

TOKEN = "a token of more than sixteen".replace(" ", "-")
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Served:
    """A server process."""

    process: subprocess.Popen[str]
    host: str
    port: int
    scheme: str = "http"
    idle: int = 0  # processes below it when nothing runs

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def pool(self, *more: str, **settings: Any) -> HttpPool:
        return HttpPool([self.address, *more], token=TOKEN, **{"patience_s": 30.0, "silence_s": 20.0, **settings})

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)

    async def ask(self, request: bytes, within_s: float = 100) -> tuple[int, dict[str, str], dict[str, Any]]:
        """(status, headers, body) of the answer to plain bytes. Interim answers are left out."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(request)
            data = await asyncio.wait_for(reader.read(), within_s)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        while data.startswith(b"HTTP/1.1 102"):
            data = data.partition(b"\r\n\r\n")[2]
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, json.loads(body)


@contextmanager
def serving(*options: str, scheme: str = "http") -> Iterator[Served]:
    """A server on a free port; it and all below it are gone afterwards."""
    command = [sys.executable, "-m", "agentrl.sandbox.cli", "serve", "--listen", "127.0.0.1:0", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SANDBOX_RUNNER_TOKEN": TOKEN}
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening on" in line, line
        host, _, port = line.split()[-1].rpartition(":")
        server = Served(process, host, int(port), scheme)
        server.idle = len(server.below())
        yield server
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def work(code: str, deadline_s: float = 10, **arguments: Any) -> bytes:
    return json.dumps({**encode_work("run", {"code": code, **arguments}, Limits()), "deadline_s": deadline_s}).encode()


def post(body: bytes, path: str = "/v1/run", **headers: str) -> bytes:
    """A well-formed request, but for what `headers` change; an underscore stands for a dash."""
    lines = {"host": "x", "authorization": f"Bearer {TOKEN}", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST {path} HTTP/1.1\r\n{text}\r\n".encode() + body


async def until(true: Callable[[], bool], within_s: float = 60) -> None:
    ends = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < ends, "it did not happen in time"
        await asyncio.sleep(0.02)
