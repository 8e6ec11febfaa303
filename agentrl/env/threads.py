"""Threads for blocking code that may never come back.

What comes in: a plain function. What goes out: its result, awaited without blocking the event loop. A call that nobody
waits for any more (deadline, cancellation) no longer counts: its place is free at once, so hung calls never keep others
waiting. `Abandoned` is raised in it, which ends a loop that polls or retries. It cannot end a call that hangs outside
of Python (a read without a time-out, a lock): that one keeps its thread, and many of them are warned about. The threads
are daemons, so a hung call does not keep the process alive either. Knows nothing of tools and deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum, auto
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MANY = 100  # hung calls that are warned about

_given_up: ContextVar[list[_Job] | None] = ContextVar("given_up", default=None)

Outcome = tuple[Any, BaseException | None]  # a call's value, or what it raised


class Abandoned(BaseException):
    """Raised in a call that nobody waits for any more."""


class _State(Enum):
    WAITING = auto()
    RUNNING = auto()
    DONE = auto()
    ABANDONED = auto()  # still running, and nobody waits for it


@dataclass(eq=False, slots=True)
class _Job:
    call: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Outcome]
    state: _State = _State.WAITING
    thread: int = 0  # its identity, while the call runs

    def run(self) -> Outcome:
        try:
            return self.call(), None
        except BaseException as error:  # a boundary: raised again where the call is awaited
            return None, error

    def settle(self, outcome: Outcome) -> None:
        """Hand the outcome to the awaiting task. Called in the worker's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._set, outcome)

    def _set(self, outcome: Outcome) -> None:
        if not self.future.done():
            self.future.set_result(outcome)


class Threads:
    """Runs up to `limit` calls at once, each in a thread of its own; further calls wait for their turn."""

    def __init__(self, limit: int = 512) -> None:
        self._limit = limit
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Begin with no threads; after a fork the parent's do not exist in the child."""
        self._lock = threading.Lock()
        self._running = 0  # calls that somebody waits for; abandoned ones do not count
        self._hung = 0  # abandoned calls that have not ended
        self._warn_at = _MANY
        self._waiting: deque[_Job] = deque()
        self._idle: list[SimpleQueue[_Job]] = []

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread, with this task's context variables, and raise what it raises."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        job = _Job(lambda: context.run(function, *args, **kwargs), loop, loop.create_future())
        self._submit(job)
        self._warn()
        try:
            value, error = await job.future
        except (asyncio.CancelledError, GeneratorExit):
            self._abandon(job)
            if job.state is _State.ABANDONED and (noted := _given_up.get()) is not None:
                noted.append(job)
            raise
        if error is not None:
            raise error
        result: T = value
        return result

    @property
    def hung(self) -> int:
        """Calls that nobody waits for and that have not ended, each with a thread of its own."""
        return self._hung

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if self._running < self._limit:
                self._start(job)
                self._running += 1
            else:
                self._waiting.append(job)

    def _abandon(self, job: _Job) -> None:
        with self._lock:
            if job.state is _State.WAITING:
                self._waiting.remove(job)
            elif job.state is _State.RUNNING:
                job.state = _State.ABANDONED
                self._hung += 1
                if job.thread:
                    _raise_in(job.thread, Abandoned)
                if self._waiting:
                    self._start(self._waiting.popleft())
                else:
                    self._running -= 1

    def _warn(self) -> None:
        """Warn of many hung calls, and again whenever there are twice as many. Asked when there is a further call."""
        if self._hung < self._warn_at:
            return
        self._warn_at = 2 * self._hung
        warnings.warn(
            f"{self._hung} blocking calls hang past their deadlines, and each keeps its thread: give what they wait "
            "for a time-out of its own, or write the tool as `async def`",
            RuntimeWarning,
            stacklevel=2,
        )

    def _start(self, job: _Job) -> None:
        """Give the job to an idle thread or to a new one. The lock is held."""
        job.state = _State.RUNNING
        if self._idle:
            self._idle.pop().put(job)
            return
        inbox: SimpleQueue[_Job] = SimpleQueue()
        inbox.put(job)
        threading.Thread(target=self._work, args=(inbox,), name="agentrl-call", daemon=True).start()

    def _work(self, inbox: SimpleQueue[_Job]) -> None:
        """A thread's life: one call after another, until one is abandoned."""
        with contextlib.suppress(Abandoned):  # raised when the call had just ended
            while True:
                job = inbox.get()
                if not self._begin(job):
                    return
                outcome = job.run()
                if not self._finish(job, inbox):
                    return
                job.settle(outcome)
                del job, outcome  # while idle, keep nothing of the last call alive

    def _begin(self, job: _Job) -> bool:
        """From now on the call can be asked to end; False if nobody waits for it by now."""
        with self._lock:
            if job.state is _State.ABANDONED:
                self._end_hung(job)
                return False
            job.thread = threading.get_ident()
            return True

    def _end_hung(self, job: _Job) -> None:
        """A call that nobody waited for has ended. The lock is held."""
        self._hung -= 1
        job.state = _State.DONE

    def _finish(self, job: _Job, inbox: SimpleQueue[_Job]) -> bool:
        """Free the job's place; False if it was given away already."""
        with self._lock:
            if job.state is _State.ABANDONED:
                self._end_hung(job)
                return False
            job.state = _State.DONE
            if self._waiting:
                following = self._waiting.popleft()
                following.state = _State.RUNNING
                inbox.put(following)
            else:
                self._running -= 1
                self._idle.append(inbox)
            return True


@contextlib.contextmanager
def noting_hung() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether a call of this block, or of a task begun in it, was given up and still runs."""
    jobs: list[_Job] = []
    token = _given_up.set(jobs)
    try:
        yield lambda: any(job.state is _State.ABANDONED for job in jobs)
    finally:
        _given_up.reset(token)


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Have `error` raised in another thread, as soon as it runs Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
