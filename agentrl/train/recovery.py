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
            if self._may_restart():
                try:
                    await self._restart(self._engine.version)
                except EngineFailure as error:
                    self._note(f"the engine did not come back: {error}")

    async def push(self, version: int) -> float:
        """`Sync.push`, by way of a restart if the engine breaks over it.

        Raises:
            SyncError: the engine's version or its log-probs are not the learner's.
            EngineFailure: the engine did not take the weights.
        """
        async with self._lock:
            try:
                return await self._sync.push(version)
            except EngineFailure:
                if not self._may_restart():
                    raise
                return await self._restart(version)

    def _may_restart(self) -> bool:
        return self._engine.broken is not None and self._done < MOST

    async def _restart(self, version: int) -> float:
        self._done += 1
        reason = self._engine.broken
        self._note(f"the engine broke and is started again ({self._done} of at most {MOST} times): {reason}")
        await self._engine.close()
        await self._engine.start()
        return await self._sync.push(version)
