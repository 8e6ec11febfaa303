"""Pushes weights, and brings an engine back that broke in the middle of a run.

What comes in: the engine and the sync. What goes out: an engine that samples, with the weights and the version that it
is to have. Episodes that wait to be played anew wait for this; one task does it for all of them, and it goes on where
the episode that asked is given up.

Whoever changes the learner's weights holds `lock` from before the change until they were pushed: a restart in between
would push weights under a version that is not theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentrl.engine.base import Engine
from agentrl.errors import EngineFailure
from agentrl.learner.sync import Sync

MOST = 3  # restarts of one run


class Recovery:
    """Restarts the engine where it can no longer sample, at most `MOST` times.

    Args:
        note: told of each restart and why.
    """

    def __init__(self, engine: Engine, sync: Sync, note: Callable[[str], None]) -> None:
        self.lock = asyncio.Lock()
        self._engine, self._sync, self._note = engine, sync, note
        self._version = engine.version  # that the engine is to have
        self._restarts = 0
        self._task: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Restart the engine if it is broken; otherwise, or when that fails, let the episode find out.

        Raises:
            SyncError: the engine came back without the learner's weights.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._recover(), name="engine-recovery")
        await asyncio.shield(self._task)

    async def push(self, version: int) -> float:
        """`Sync.push`, by way of a restart if the engine breaks over it. The caller holds `lock`.

        Raises:
            SyncError: the engine's version or its log-probs are not the learner's.
            EngineFailure: the engine did not take the weights.
        """
        self._version = version
        try:
            return await self._sync.push(version)
        except EngineFailure:
            if not self._may_restart():
                raise
            return await self._restart()

    async def close(self) -> None:
        """Give up a restart that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _recover(self) -> None:
        async with self.lock:
            if self._may_restart():
                try:
                    await self._restart()
                except EngineFailure as error:
                    self._note(f"the engine did not come back: {error}")

    def _may_restart(self) -> bool:
        return self._engine.broken is not None and self._restarts < MOST

    async def _restart(self) -> float:
        self._restarts += 1
        reason = self._engine.broken
        self._note(f"the engine broke and is started again ({self._restarts} of at most {MOST} times): {reason}")
        await self._engine.close()
        await self._engine.start()
        return await self._sync.push(self._version)
