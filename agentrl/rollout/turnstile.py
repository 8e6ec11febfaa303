"""Lets episodes go on a few at a time, so that the event loop stays punctual.

What comes in: episodes that are about to use the processor. What goes out: leave to do so, in the order of their
coming. asyncio runs everything that is ready before it looks at its clocks again: a thousand episodes whose tools
answer in the same moment would hold up everything else until the last of them has gone on. Knows no episode.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

_SLICE_S = 0.005  # of work before the loop turns
_MOST = 16  # that go on in one turn of the loop


class Turnstile:
    """For the episodes of one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._began = 0.0  # when this turn of the loop began, on the performance counter
        self._watching = False  # whether `_turn` will be called when the loop turns
        self._batch = 4.0

    async def __call__(self) -> None:
        """Go on: at once where there is time left in this turn of the loop, otherwise in one of the next."""
        if not self._watching:
            self._watching = True
            self._began = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._turn)
            return
        if not self._waiting and time.perf_counter() - self._began < _SLICE_S:
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _turn(self) -> None:
        """The loop has turned: let as many go on as lately fitted into a slice."""
        now = time.perf_counter()
        fitted = _SLICE_S / max(now - self._began, 1e-6)
        self._batch = min(max(1.0, self._batch * min(max(fitted, 0.5), 2.0)), _MOST)
        self._began = now
        let_go = 0
        while self._waiting and let_go < int(self._batch):
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled while it waited
                turn.set_result(None)
                let_go += 1
        self._watching = let_go > 0
        if self._watching:
            asyncio.get_running_loop().call_soon(self._turn)
