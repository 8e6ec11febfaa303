"""The verifier: one object that checks answers, for asyncio, threads, scripts and child processes alike.

What comes in: a gold answer and a response. What goes out: a `Judgement`; `GoldError` where the gold answer cannot be
read; `VerifierFailure` where machinery broke, which is never a score. Numbers and words are judged at once by the rules
in the caller's own thread; the rest waits for a worker process, in a bounded queue.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from agentrl.errors import AgentRLError, ConfigError, VerifierFailure
from agentrl.verify.cache import Cache
from agentrl.verify.limits import Limits
from agentrl.verify.queue import Found
from agentrl.verify.rules import Undecided, judge, read_gold
from agentrl.verify.service import Service, ServiceSettings
from agentrl.verify.verdict import GoldError, Judgement, Verdict

Pair = tuple[str, str]  # (gold, response)
_SLICE_S = 0.005  # after so long the batch lets others have the event loop


class Verifier:
    """Checks answers against gold ones.

    Args:
        limit_s: Seconds that a worker may take for one answer; then it is killed and replaced.
        workers: Worker processes. They start with the first answer that needs one, and one more process loads
            math-verify for them.
        memory_mb: Address space of a worker, MiB.
        max_waiting: Answers that wait for a worker; further callers wait for room.
        cache_size: Results of workers that are kept.
        symbolic: Whether workers and math-verify are used at all. Without them only numbers and words are judged, and
            everything else is unparsable.
        limits: Caps on an answer before it is parsed.

    Close it with `close()`, `await aclose()`, `with` or `async with`; its processes also end when it is collected, and
    with the process that made it. A copy in a child process, by fork or pickled, starts its own.
    """

    def __init__(
        self,
        *,
        limit_s: float = 2.0,
        workers: int = 2,
        memory_mb: int = 1024,
        max_waiting: int = 1000,
        cache_size: int = 10_000,
        symbolic: bool = True,
        limits: Limits | None = None,
    ) -> None:
        for name, value, least in (
            ("limit_s", limit_s, 0.05),
            ("workers", workers, 1),
            ("memory_mb", memory_mb, 256),
            ("max_waiting", max_waiting, 1),
            ("cache_size", cache_size, 0),
        ):
            if not value >= least:
                raise ConfigError(f"Verifier got {name} = {value!r}; it must be at least {least}")
        self.limits = limits or Limits()
        self.symbolic = symbolic
        self._settings = ServiceSettings(limit_s, workers, memory_mb, max_waiting)
        self._cache_size = cache_size
        self._closed = False
        self._service: Service | None = None
        self._begin()
        _VERIFIERS.add(self)

    # asyncio

    async def verify(self, gold: str, response: str) -> Judgement:
        """Judge `response` against `gold`; either may mark its answer (`####`, `\\boxed{}`, "answer is").

        Raises:
            GoldError: The gold answer cannot be read.
            VerifierFailure: A worker broke, the machine was too busy, or the verifier is closed.
            MissingDependencyError: The answer needs math-verify, which is not installed.
        """
        first = self._judge(gold, response)
        if isinstance(first, Judgement):
            return first
        while True:
            future, room = self._running().submit(first.gold, first.answer)
            if future is not None:
                return self._judgement(gold, first, await asyncio.wrap_future(future))
            assert room is not None
            await asyncio.wrap_future(room)

    async def verify_batch(self, pairs: Iterable[Pair]) -> list[Judgement | AgentRLError]:
        """Judge (gold, response) pairs; in their order, an error in the place of a pair that has no verdict."""
        pairs = list(pairs)
        results: list[Judgement | AgentRLError | None] = [None] * len(pairs)
        left: list[int] = []
        slice_ends = time.perf_counter() + _SLICE_S
        for place, pair in enumerate(pairs):
            results[place] = self._at_once(*pair)
            if results[place] is None:
                left.append(place)
            if time.perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = time.perf_counter() + _SLICE_S
        places = iter(left)
        callers = min(len(left), self._settings.max_waiting + self._settings.workers)
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self._verify_some(places, pairs, results))
        return [result for result in results if result is not None]

    async def ready(self) -> None:
        """Start the workers, if there are to be any, and return when they are warm."""
        if self.symbolic:
            await asyncio.wrap_future(self._warm())

    async def aclose(self) -> None:
        """As `close`, without holding up the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # Threads and scripts

    def verify_sync(self, gold: str, response: str) -> Judgement:
        """As `verify`, for code that is not asynchronous; never call it in an event loop's thread."""
        first = self._judge(gold, response)
        return first if isinstance(first, Judgement) else self._judgement(gold, first, self._submit(first).result())

    def verify_batch_sync(self, pairs: Iterable[Pair]) -> list[Judgement | AgentRLError]:
        """As `verify_batch`, for code that is not asynchronous."""
        pairs = list(pairs)
        results: list[Judgement | AgentRLError] = []
        waiting: list[tuple[int, Undecided, Future[Found]]] = []
        for place, (gold, response) in enumerate(pairs):
            try:
                first = self._judge(gold, response)
                if isinstance(first, Judgement):
                    results.append(first)
                    continue
                waiting.append((place, first, self._submit(first)))
                results.append(VerifierFailure("not yet checked"))
            except AgentRLError as error:
                results.append(error)
        for place, undecided, future in waiting:
            try:
                results[place] = self._judgement(pairs[place][0], undecided, future.result())
            except AgentRLError as error:
                results[place] = error
        return results

    def ready_sync(self) -> None:
        """As `ready`."""
        if self.symbolic:
            self._warm().result()

    def close(self) -> None:
        """End the workers and wait until they have ended. What still waits gets a `VerifierFailure`."""
        self._closed = True
        with self._lock:
            service, self._service = self._service, None
        if service is not None:
            service.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def worker_pids(self) -> Sequence[int]:
        """Process ids of the workers that are there now."""
        service = self._service
        return () if service is None else service.worker_pids()

    # Inside

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._service = None
        self._cache = Cache(self._cache_size)

    def _judge(self, gold: str, response: str) -> Judgement | Undecided:
        if self._closed:
            raise VerifierFailure("the verifier is closed; make another one")
        first = judge(read_gold(gold, self.limits), response, self.limits)
        if isinstance(first, Judgement):
            return first
        if not self.symbolic:
            return Judgement(Verdict.UNPARSABLE, "neither a number nor words, and symbolic=False", first.shown)
        found = self._cache.get(first.gold, first.answer)
        return first if found is None else self._judgement(gold, first, found, by="cache")

    def _judgement(self, gold: str, undecided: Undecided, found: Found, by: str = "math-verify") -> Judgement:
        if by != "cache":
            self._cache.put(undecided.gold, undecided.answer, found)
        if found.verdict == "gold":
            raise GoldError(gold, found.reason)
        return Judgement(Verdict(found.verdict), found.reason, undecided.shown, by)

    def _at_once(self, gold: str, response: str) -> Judgement | AgentRLError | None:
        try:
            first = self._judge(gold, response)
        except AgentRLError as error:
            return error
        return first if isinstance(first, Judgement) else None

    async def _verify_some(
        self, places: Iterable[int], pairs: Sequence[Pair], results: list[Judgement | AgentRLError | None]
    ) -> None:
        for place in places:
            try:
                results[place] = await self.verify(*pairs[place])
            except AgentRLError as error:
                results[place] = error

    def _submit(self, undecided: Undecided) -> Future[Found]:
        while True:
            future, room = self._running().submit(undecided.gold, undecided.answer)
            if future is not None:
                return future
            assert room is not None
            room.result()

    def _warm(self) -> Future[Found]:
        return self._submit(Undecided("x", "x", "x"))

    def _running(self) -> Service:
        with self._lock:
            if self._closed:
                raise VerifierFailure("the verifier is closed; make another one")
            if self._service is None:
                self._service = Service(self._settings)
                weakref.finalize(self, self._service.stop)
            return self._service

    def _after_fork(self) -> None:
        service = self._service
        self._begin()
        if service is not None:
            service.abandon()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "limits": self.limits,
            "symbolic": self.symbolic,
            "settings": self._settings,
            "cache_size": self._cache_size,
            "closed": self._closed,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.limits, self.symbolic = state["limits"], state["symbolic"]
        self._settings, self._cache_size, self._closed = state["settings"], state["cache_size"], state["closed"]
        self._begin()
        _VERIFIERS.add(self)


_VERIFIERS: weakref.WeakSet[Verifier] = weakref.WeakSet()


def _forked() -> None:
    for verifier in list(_VERIFIERS):
        verifier._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
