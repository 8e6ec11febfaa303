"""The server's jobs: how many at once, how many may wait, when to come back, and which were asked for twice.

In: what to do and by when. Out: the bytes of an answer. It knows no HTTP but the numbers of its refusals.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from .http import Refused

_KEPT_S, _KEPT_BYTES = 300.0, 64 << 20  # answers for those who ask again
_LONGEST_AWAY_S = 60.0


Action = Callable[[], Awaitable[bytes]]


class Job:
    """One piece of work, for all who have asked for it; it is cancelled when none of them is left."""

    def __init__(self, task: asyncio.Task[bytes], digest: bytes) -> None:
        self.task, self.digest, self.waiting = task, digest, 0

    @contextmanager
    def awaited(self) -> Iterator[asyncio.Task[bytes]]:
        self.waiting += 1
        try:
            yield self.task
        finally:
            self.waiting -= 1
            if not self.waiting:
                self.task.cancel()


class Jobs:
    """`running` at once and `queue` waiting; more are refused with 429."""

    def __init__(self, running: int, queue: int) -> None:
        self.running, self.queue = running, queue
        self.inside = 0  # requests that have a place, whether they wait or run
        self.closing = False
        self.refused = 0
        self._slots = asyncio.Semaphore(running)
        self._jobs: set[asyncio.Task[bytes]] = set()
        self._by_key: dict[str, Job] = {}
        self._kept: OrderedDict[str, tuple[float, bytes, bytes]] = OrderedDict()
        self._kept_bytes = 0
        self._usual_s = 0.1  # that a job takes

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises Refused where there is none."""
        if self.closing:
            raise Refused(503, "the server is stopping", {"Retry-After": "5"})
        if self.inside >= self.running + self.queue:
            self.refused += 1
            wait_s = self._usual_s * (self.inside - self.running + 1) / self.running
            seconds = math.ceil(max(1.0, min(wait_s, _LONGEST_AWAY_S)))
            raise Refused(429, f"{self.inside} requests are inside already", {"Retry-After": str(seconds)})
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    @property
    def waiting(self) -> int:
        return max(0, self.inside - self.running)

    def job(self, key: str, digest: bytes, action: Action, ends: float) -> Job | bytes:
        """A new job, or that which is there under `key` already, or what it came to.

        Args:
            digest: of the request; another one under the same key is refused.
            ends: the event loop's time at which the work is given up.
        """
        self._forget_old()
        if key in self._kept:
            _, kept_digest, done = self._kept[key]
            _same(kept_digest, digest)
            return done
        if key in self._by_key and not self._by_key[key].task.done():
            _same(self._by_key[key].digest, digest)
            return self._by_key[key]
        task = asyncio.create_task(self._do(key, digest, action, ends))
        self._jobs.add(task)
        job = Job(task, digest)
        task.add_done_callback(lambda task: self._ended(key, job))
        if key:
            self._by_key[key] = job
        return job

    async def _do(self, key: str, digest: bytes, action: Action, ends: float) -> bytes:
        try:
            async with asyncio.timeout_at(ends), self._slots:
                began = time.monotonic()
                done = await action()
                self._usual_s += 0.1 * (time.monotonic() - began - self._usual_s)
        except TimeoutError:
            raise Refused(504, "the request's deadline has passed") from None
        if key and len(done) <= _KEPT_BYTES:
            self._kept[key] = time.monotonic() + _KEPT_S, digest, done
            self._kept_bytes += len(done)
        return done

    def _ended(self, key: str, job: Job) -> None:
        self._jobs.discard(job.task)
        if self._by_key.get(key) is job:
            del self._by_key[key]
        if not job.task.cancelled():
            job.task.exception()  # those who wait for it have it; nobody needs a warning

    def _forget_old(self) -> None:
        now = time.monotonic()
        while self._kept:
            key, (until, _, done) = next(iter(self._kept.items()))
            if until > now and self._kept_bytes <= _KEPT_BYTES:
                return
            del self._kept[key]
            self._kept_bytes -= len(done)

    async def close(self, patience_s: float) -> None:
        """Takes no more; what runs may end, and is cancelled after `patience_s`."""
        self.closing = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=patience_s)
        for task in tuple(self._jobs):
            task.cancel()
        if self._jobs:
            await asyncio.wait(tuple(self._jobs))


def _same(digest: bytes, other: bytes) -> None:
    if digest != other:
        raise Refused(422, "this Idempotency-Key was given for another request")
