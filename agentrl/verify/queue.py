"""Checks that wait for a worker, and who waits for them.

What comes in, from any thread: pairs of LaTeX texts. What goes out: a future for each, and the jobs in order. Knows
nothing of workers and deadlines. Equal checks that wait together are one job with several futures.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

from agentrl.errors import MissingDependencyError, VerifierFailure


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker found: `verdict` is a verdict's value, or "gold" when the gold answer cannot be read.

    `sure` is false for what might come out otherwise at another time.
    """

    verdict: str
    reason: str
    sure: bool = True


@dataclass(eq=False)
class Job:
    gold: str
    answer: str
    waiters: list[Future[Found]]
    attempts: int = 0
    gold_read: bool = False
    deadline: float = 0.0  # time.monotonic()
    cpu_before: float | None = None  # of its worker, seconds
    extensions: int = 0  # of the deadline


class Queue:
    """Bounded; first in, first out."""

    def __init__(self, max_waiting: int) -> None:
        self._most = max_waiting
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._known: dict[tuple[str, str], Job] = {}  # waiting or with a worker
        self._rooms: deque[Future[None]] = deque()
        self._closed = False

    def submit(self, gold: str, answer: str) -> tuple[Future[Found] | None, Future[None] | None]:
        """Queue a check: its future; or, when the queue is full, one that comes when it is worth trying again.

        Raises:
            VerifierFailure: The queue is closed.
        """
        with self._lock:
            if self._closed:
                raise VerifierFailure("the verifier is closed; make another one")
            future: Future[Found] = Future()
            if known := self._known.get((gold, answer)):
                known.waiters.append(future)
                return future, None
            if len(self._waiting) >= self._most:
                room: Future[None] = Future()
                self._rooms.append(room)
                return None, room
            job = Job(gold, answer, [future])
            self._known[gold, answer] = job
            self._waiting.append(job)
        return future, None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def callers_without_room(self) -> bool:
        return bool(self._rooms)

    def next(self) -> Job | None:
        """The oldest that somebody still waits for."""
        with self._lock:
            while self._waiting:
                job = self._waiting.popleft()
                if not all(waiter.cancelled() for waiter in job.waiters):
                    return job
                del self._known[job.gold, job.answer]
        return None

    def put_back(self, job: Job) -> None:
        """To be done next."""
        with self._lock:
            self._waiting.appendleft(job)

    def grant_room(self) -> None:
        """Tell as many callers to try again as there is room for."""
        with self._lock:
            free = max(0, self._most - len(self._waiting))
            granted = [self._rooms.popleft() for _ in range(min(free, len(self._rooms)))]
        for room in granted:
            if room.set_running_or_notify_cancel():
                room.set_result(None)

    def finish(self, job: Job, found: Found) -> None:
        for waiter in self._forget(job):
            waiter.set_result(found)

    def fail(self, job: Job, why: str, *, missing: bool = False) -> None:
        """Broken machinery; `missing`: math-verify is not installed."""
        for waiter in self._forget(job):
            waiter.set_exception(_missing(why) if missing else VerifierFailure(why))

    def fail_all(self, why: str, *, missing: bool = False, close: bool = False) -> None:
        """Fail all that wait and all that run; from then on refuse more if `close`."""
        with self._lock:
            self._closed = self._closed or close
            jobs = list(self._known.values())
            self._waiting.clear()
            rooms, self._rooms = self._rooms, deque()
        for job in jobs:
            self.fail(job, why, missing=missing)
        for room in rooms:
            if room.set_running_or_notify_cancel():
                room.set_result(None)

    def _forget(self, job: Job) -> list[Future[Found]]:
        with self._lock:
            self._known.pop((job.gold, job.answer), None)
            return [waiter for waiter in job.waiters if waiter.set_running_or_notify_cancel()]


def _missing(why: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"this answer needs math-verify, which cannot be imported ({why}): install 'agentrl[math]', or make the "
        "verifier with symbolic=False, which judges numbers and words alone"
    )
