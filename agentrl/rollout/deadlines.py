"""The deadlines of one episode: its own and that of what it waits for, with one timer for both.

What comes in: how long each may take. What goes out: the episode's task, cancelled at the first that is over, and which
one that was. As `asyncio.timeout` does it, but a deadline that is met costs two assignments: the timer is set anew only
when it rings too early, so an episode of a hundred turns sets a handful. Knows no environment and no engine.
"""

from __future__ import annotations

import asyncio
import math
from typing import Literal


class Deadlines:
    """Of the task that makes it, which calls `close` at the end."""

    def __init__(self, episode_s: float, wait_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._loop = task, asyncio.get_running_loop()
        self._cancelling = task.cancelling()
        self._wait_s = wait_s
        self._ends = self._loop.time() + episode_s
        self._due = math.inf  # of what is waited for
        self._timer: asyncio.TimerHandle | None = None
        self._rang: Literal["wait", "episode"] | None = None

    def wait(self) -> None:
        """Something is waited for from now on."""
        self._due = self._loop.time() + self._wait_s
        if self._timer is None:
            self._set()

    def waited(self) -> bool:
        """It has come, or failed; whether its deadline, and nobody else, cancelled the task."""
        self._due = math.inf
        return self._rang == "wait" and self._taken_back()

    def ended(self) -> bool:
        """Whether the episode's deadline, and nobody else, cancelled the task. From then on there is none."""
        if self._rang != "episode":
            return False
        self._ends = math.inf
        return self._taken_back()

    def insist(self) -> None:
        """Cancel again where what was waited for took no notice of the episode's end."""
        if self._rang == "episode":
            raise asyncio.CancelledError

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _taken_back(self) -> bool:
        self._rang = None
        return self._task.uncancel() <= self._cancelling

    def _set(self) -> None:
        self._timer = self._loop.call_at(min(self._due, self._ends), self._ring)

    def _ring(self) -> None:
        assert self._timer is not None
        if min(self._due, self._ends) > self._timer.when():
            self._set()
            return
        self._timer = None
        self._rang = "episode" if self._ends <= self._due else "wait"
        self._task.cancel()
