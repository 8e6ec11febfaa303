"""One vLLM server as the engine sees it: whether it may sample, what runs on it, what it counts.

What comes in: completions to ask for, news of its health, weights to take. What goes out: answers as JSON. A server
samples only while it is healthy and has the engine's weights; whatever runs on one that loses either is cut off, for
nobody knows what would have sampled its tokens. Knows nothing of other servers.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentrl.engine.http import Client, HttpError
from agentrl.trajectory import UNKNOWN_VERSION

_GAUGES = {
    "kv_usage": "vllm:kv_cache_usage_perc",
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
}
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)", re.MULTILINE)


@dataclass(eq=False, slots=True)
class Server:
    """A server, and what is known of it."""

    client: Client
    version: int = UNKNOWN_VERSION  # of the weights it has
    weights: list[tuple[str, int]] = field(default_factory=list)  # name and version of all that it was given, in order
    drained: str | None = None  # why it gets no requests until it is healthy again
    lost: str | None = None  # why it gets none any more: nobody knows its weights
    load: int = 0  # completions that it was chosen for and that have not come back
    syncing: bool = False  # it is taking weights: what it says of their version may be older than what we know
    gauges: dict[str, float] = field(default_factory=dict)
    ended: Callable[[], str] = str  # of a server that agentrl started: how its process ended; "": it lives
    look: asyncio.Event = field(default_factory=asyncio.Event)  # set: its health is to be asked at once
    _calls: dict[asyncio.Task[Any], str | None] = field(default_factory=dict)  # running -> why it was cut off

    @property
    def name(self) -> str:
        return self.client.url

    def refusal(self, version: int) -> str | None:
        """Why it may not sample with `version`; None: it may."""
        if self.lost or self.drained:
            return ". ".join(filter(None, (f"{self.name}: {self.lost or self.drained}", self.ended())))
        if self.version != version:
            return f"{self.name}: it has version {self.version} of the weights, not {version}"
        return None

    def take(self, name: str, version: int) -> None:
        """It has these weights now."""
        self.version = version
        self.weights.append((name, version))

    def drain(self, reason: str, *, cut: bool = False) -> None:
        """No requests until its health is known again; with `cut`, those that run are to be tried elsewhere."""
        if self.drained is None:
            self.drained = reason
        if cut:
            self._cut(reason)
        self.look.set()

    def lose(self, reason: str) -> None:
        """No requests any more: its weights are not known."""
        self.lost, self.version = reason, UNKNOWN_VERSION
        self._cut(reason)

    def _cut(self, reason: str) -> None:
        for call in self._calls:
            self._calls[call] = reason
            call.cancel()

    async def generate(self, body: dict[str, Any], deadline_s: float) -> Any:
        """The answer to one completion, as JSON.

        Raises:
            HttpError: the server failed, or was drained meanwhile.
        """
        ask = self.client.ask("POST", "/inference/v1/generate", body, deadline_s=deadline_s)
        call = asyncio.create_task(ask)
        call.add_done_callback(_looked_at)
        self._calls[call] = None
        try:
            answer = await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._calls[call] is None or (task is not None and task.cancelling()):
                raise
            answer = None
        finally:
            call.cancel()
            reason = self._calls.pop(call)
        if reason is not None:
            raise HttpError(f"POST {self.name}/inference/v1/generate was given up: {reason}", transient=True)
        return answer

    async def abort(self, request_id: str, deadline_s: float) -> None:
        """Ask the server to stop a request; it then answers with what was sampled."""
        body = {"request_ids": [f"generate-tokens-{request_id}"]}
        await self.client.ask("POST", "/abort_requests", body, deadline_s=deadline_s)

    async def check(self, deadline_s: float) -> None:
        """Ask for its health, the name of its weights and its gauges; drain it, or take it back, accordingly."""
        before = list(self.weights)
        try:
            await self.client.ask("GET", "/health", deadline_s=deadline_s)
            info = await self.client.ask("GET", "/weight_info", deadline_s=deadline_s)
            self.gauges = read_gauges(await self._metrics_page(deadline_s))
        except HttpError as error:
            self.drain(str(error), cut=True)
            return
        said = info.get("weight_version") if isinstance(info, dict) else info
        if not self.syncing and before and before == self.weights and said != before[-1][0]:
            self.lose(
                f"it says that its weights are {said!r}, and was given {before[-1][0]!r}: it was restarted, or "
                "somebody else gave it others"
            )
            return
        self.drained = None

    async def _metrics_page(self, deadline_s: float) -> str:
        try:
            return await self.client.text("/metrics", deadline_s=deadline_s)
        except HttpError as error:
            if error.status is None:
                raise
            return ""  # metrics can be switched off


def _looked_at(call: asyncio.Task[Any]) -> None:
    """Nobody waits any more for a call that was cut off; its error needs no telling."""
    if not call.cancelled():
        call.exception()


def read_gauges(page: str) -> dict[str, float]:
    """What a page of vLLM's metrics says of its load; of several engines behind one server, the sum or the fullest."""
    found: dict[str, list[float]] = {}
    for name, value in _SAMPLE.findall(page):
        found.setdefault(name, []).append(_number(value))
    gauges = {key: found[name] for key, name in _GAUGES.items() if name in found}
    return {key: float(max(values) if key == "kv_usage" else sum(values)) for key, values in gauges.items()}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
