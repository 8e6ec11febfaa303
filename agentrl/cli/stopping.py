"""Runs a coroutine that Ctrl-C stops in order.

In: a coroutine. Out: what it returns, or `KeyboardInterrupt` once it has been cancelled and everything below it has
ended. asyncio's own runner tears running tasks apart at a second Ctrl-C; here it takes one that is meant.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

_SAME_PRESS_S = 2.0  # an interrupt so soon after the first, as of a key that was pressed twice, says nothing new


def run_stoppable(main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main`. The first interrupt cancels it; one that comes `_SAME_PRESS_S` later ends it as it is.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    stop = _Stop()
    before = signal.signal(signal.SIGINT, stop)
    try:
        with asyncio.Runner() as runner:
            return runner.run(stop.watch(main))
    except asyncio.CancelledError:
        if stop.at is None:
            raise
        raise KeyboardInterrupt from None
    finally:
        if stop.at is None:  # else the command is about to end, and a key that was pressed twice must not tear it apart
            signal.signal(signal.SIGINT, before)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold interrupts back while the block runs, which imports: raised in there, Python may print one and go on.

    Raises:
        KeyboardInterrupt: at the end, there was one; or there was another, `_SAME_PRESS_S` after the first.
    """
    came: list[float] = []

    def hold(number: int, frame: FrameType | None) -> None:
        came.append(time.monotonic())
        if came[-1] - came[0] > _SAME_PRESS_S:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


class _Stop:
    """The handler of interrupts."""

    def __init__(self) -> None:
        self.at: float | None = None  # when the first one came
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def watch(self, main: Coroutine[Any, Any, Result]) -> Result:
        """Await `main` as what an interrupt cancels."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.at is not None:
            main.close()
            raise asyncio.CancelledError
        return await main

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.at is None:
            self.at = now
            if self._loop is not None and self._task is not None:
                self._task.cancel()
                self._loop.call_soon_threadsafe(lambda: None)  # wakes a loop that waits
        elif now - self.at > _SAME_PRESS_S:
            raise KeyboardInterrupt
