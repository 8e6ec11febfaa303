"""Brings an engine back that broke in the middle of a run.

What comes in: the engine and the sync. What goes out: an engine that samples again, with the weights and the version
it had. Episodes that wait to be played anew wait for this; the first of them does it, and the others find it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentrl.engine.base import Engine
from agentrl.errors import EngineFailure
from agentrl.learner.sync import Sync

MOST = 3  # of one run


class Recovery:
    """Restarts the engine where it can no longer sample, at most `MOST` times.

    Args:
        note: told of each restart and why.
    """

    def __init__(self, engine: Engine, sync: Sync, note: Callable[[str], None]) -> None:
        self._engine, self._sync, self._note = engine, sync, note
        self._lock = asyncio.Lock()
        self._done = 0

    async def __call__(self) -> None:
        """Restart the engine if it is broken; otherwise, or when that fails, let the episode find out."""
        async with self._lock:
            reason = self._engine.broken
            if reason is None or self._done == MOST:
                return
            self._done += 1
            self._note(f"the engine broke and is started again ({self._done} of at most {MOST} times): {reason}")
            try:
                version = self._engine.version
                await self._engine.close()
                await self._engine.start()
                await self._sync.push(version)
            except EngineFailure as error:
                self._note(f"the engine did not come back: {error}")
