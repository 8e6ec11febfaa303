"""How late the event loop is.

What comes in: nothing. What goes out: by how much a short sleep overran, over the time it was watched: what blocks the
loop (CPU work in an `async def`, a blocking call) delays every episode by as much.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import numpy as np

SLEEP_S = 0.01
_WORTH_SAYING_S = 0.5
_KEPT = 10_000  # measurements; the latest


class LoopLag:
    """Measures while the block runs."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque(maxlen=_KEPT)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="loop-lag")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    def metrics(self) -> Mapping[str, float]:
        """`time/loop_lag_p99_s` and `time/loop_lag_max_s`; nothing where nothing was measured."""
        if not self._late_s:
            return {}
        late_s = np.array(self._late_s)
        return {
            "time/loop_lag_p99_s": float(np.quantile(late_s, 0.99)),
            "time/loop_lag_max_s": float(late_s.max()),
        }

    async def _watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(SLEEP_S)
            self._late_s.append(time.perf_counter() - before - SLEEP_S)


class LagWarning:
    """Says once that something computes in the event loop while episodes run.

    Args:
        note: told it.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note: Callable[[str], None] | None = note

    def look(self, lag_s: float) -> None:
        """At a step's lag, 99th percentile."""
        if lag_s <= _WORTH_SAYING_S or self._note is None:
            return
        self._note(
            f"the event loop is late by {lag_s:.2f} s (99th percentile): something computes in it and delays every "
            "episode. A tool, reward, step or reset that computes is better a plain def, which runs in a thread"
        )
        self._note = None
