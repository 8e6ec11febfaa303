"""Completions from a fleet of servers: tries, further tries on other servers, aborts, counts.

What comes in: requests. What goes out: completions, whole and proven, or an `EngineFailure` that tells every try.
Nothing of an answer that was not received whole is kept: a further try begins at the beginning, with the same seed.
Knows how weights are named, not how they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from agentrl.engine.base import Request
from agentrl.engine.http import HttpError
from agentrl.engine.server.answer import BadAnswer, generate_body, read_answer
from agentrl.engine.server.fleet import Fleet
from agentrl.engine.server.server import Server
from agentrl.engine.settings import ServerSettings
from agentrl.errors import EngineFailure
from agentrl.trajectory import Completion

ABORT_DEADLINE_S = 10.0  # for an aborted request to come back with what it has
ABORT_POLL_S = 0.05


@dataclass(eq=False, slots=True)
class _Running:
    """One `complete` that has not returned."""

    request_id: str
    server: Server | None = None  # that samples now
    call: asyncio.Task[Completion] | None = None
    aborted: bool = False


class Sampler:
    """Samples with the servers of `fleet` that have `version`, while `open` is set and nothing is `broken`."""

    def __init__(self, fleet: Fleet, settings: ServerSettings) -> None:
        self.fleet = fleet
        self.version = 0
        self.broken: str | None = None  # why nothing is sampled any more
        self.open = asyncio.Event()  # cleared while weights change: no request enters then
        self.open.set()
        self._settings = settings
        self._running: dict[str, _Running] = {}  # by episode id
        self._run = uuid.uuid4().hex[:8]  # several clients may share a server
        self._numbers = itertools.count()
        self._requests = self._retries = self._prompt_tokens = self._cached_tokens = 0
        self._tells_cached = False

    async def complete(self, request: Request, max_tokens: int) -> Completion:
        """Sample one completion; a failed try is repeated on another server, `engine.server.retries` times.

        Raises:
            EngineFailure: every try failed (each is told, with the server's address and what came back), or the request
                was refused.
        """
        running = _Running(f"{self._run}/{request.episode_id}/{next(self._numbers)}")
        self._running[request.episode_id] = running
        self._requests += 1
        try:
            return await self._with_retries(request, running, max_tokens)
        finally:
            if self._running.get(request.episode_id) is running:
                del self._running[request.episode_id]

    async def _with_retries(self, request: Request, running: _Running, max_tokens: int) -> Completion:
        settings = self._settings
        told: list[str] = []
        failed: Server | None = None
        wait_s = 0.0
        for attempt in range(settings.retries + 1):
            if attempt:
                self._retries += 1
                await asyncio.sleep(max(wait_s, settings.backoff_s * 2 ** (attempt - 1)))
            await self.open.wait()
            if running.aborted:
                return _nothing()
            if self.broken is not None:
                raise EngineFailure(self.broken)
            server = self.fleet.pick(request.episode_id, self.version, number=request.sampler, failed=failed)
            if server is None:
                told.append(f"no server samples: {self.fleet.refusals(self.version)}")
                continue
            try:
                return await self._sample(server, request, running, max_tokens)
            except HttpError as error:
                if self.broken is not None:
                    raise EngineFailure(self.broken) from error
                told.append(str(error))
                if not error.transient:
                    raise EngineFailure(f"a server refused a request: {error}") from error
                failed, wait_s = server, error.wait_s
        raise EngineFailure(f"no server could sample, tried {len(told)} times: {'; '.join(dict.fromkeys(told))}")

    async def _sample(self, server: Server, request: Request, running: _Running, max_tokens: int) -> Completion:
        running.server = server
        server.load += 1
        running.call = asyncio.create_task(self._ask(server, request, running, max_tokens))
        try:
            return await running.call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if running.aborted and not (task is not None and task.cancelling()):
                return _nothing()  # the server did not give back what it had
            raise
        except HttpError:
            if running.aborted:
                return _nothing()
            raise
        finally:
            running.call.cancel()
            server.load -= 1
            running.server = running.call = None

    async def _ask(self, server: Server, request: Request, running: _Running, max_tokens: int) -> Completion:
        """One try on one server; a server that fails it is drained until its health is known again."""
        if running.aborted:  # between the choice of the server and this task's first step
            return _nothing()
        now, (name, _) = len(server.weights) - 1, server.weights[-1]
        body = generate_body(request, request_id=running.request_id, max_tokens=max_tokens, weights=name)
        try:
            answer = await server.generate(body, self._settings.request_deadline_s)
            read = read_answer(answer, request.sampling, max_tokens=max_tokens, weights=dict(server.weights[now:]))
        except BadAnswer as error:
            asked = f"POST {server.name}/inference/v1/generate"
            server.drain(f"{asked} gave an answer that cannot be used: {error}")
            raise HttpError(f"{asked} gave an answer that cannot be used: {error}", transient=True) from error
        except HttpError as error:
            if error.transient and error.status != 429:  # too many requests: it is well
                server.drain(str(error))
            raise
        self._prompt_tokens += read.prompt_tokens
        self._tells_cached |= read.cached_tokens is not None
        self._cached_tokens += read.cached_tokens or 0
        return read.completion

    async def abort(self, episode_id: str) -> None:
        """Stop the episode's request; where its server does not give back what it sampled, it returns no tokens."""
        running = self._running.get(episode_id)
        if running is None:
            return
        running.aborted = True
        call, server = running.call, running.server
        if call is None or server is None:
            return  # it waits for a server: it sees the mark
        await asyncio.sleep(0)  # what was to be sent next is not: it sees the mark as well
        with contextlib.suppress(TimeoutError, HttpError):
            async with asyncio.timeout(ABORT_DEADLINE_S):
                while not call.done():  # asked too early, a server does not know the request yet
                    await server.abort(running.request_id, ABORT_DEADLINE_S)
                    await asyncio.wait({call}, timeout=ABORT_POLL_S)
        call.cancel()

    def metrics(self) -> Mapping[str, float]:
        """Counters since the start and gauges of the servers; NaN where no server tells.

        `prefix_hit_rate`: share of prompt tokens found in a prefix cache. `kv_usage`: of the fullest server. `running`
        and `waiting`: requests in the servers. `servers`: how many may sample now.
        """
        gauges = [server.gauges for server in self.fleet.servers if server.refusal(self.version) is None]
        rate = self._cached_tokens / self._prompt_tokens if self._tells_cached else math.nan
        return {
            "prefix_hit_rate": rate,
            "kv_usage": _joined(max, gauges, "kv_usage"),
            "running": _joined(sum, gauges, "running"),
            "waiting": _joined(sum, gauges, "waiting"),
            "requests": float(self._requests),
            "retries": float(self._retries),
            "servers": float(len(gauges)),
        }


def _nothing() -> Completion:
    """What an aborted request has sampled that no server began, or gave back."""
    return Completion(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64), "abort")


def _joined(join: Callable[[Iterable[float]], float], gauges: list[dict[str, float]], key: str) -> float:
    values = [gauge[key] for gauge in gauges if key in gauge]
    return float(join(values)) if values else math.nan
