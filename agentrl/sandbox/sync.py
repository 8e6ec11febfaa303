"""The pool for scripts without an event loop: the same calls, which wait. One thread keeps the pool's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from .limits import Limits
from .pool import SandboxPool
from .result import CallResult, CellResult, RunResult
from .session import Session

T = TypeVar("T")


class SyncSandboxPool:
    """`with SyncSandboxPool() as pool: result = pool.run(code)`. Arguments as of SandboxPool; for any thread."""

    def __init__(self, **settings: Any) -> None:
        self._pool = SandboxPool(**settings)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="sandbox", daemon=True)

    def __enter__(self) -> SyncSandboxPool:
        self._thread.start()
        try:
            self.wait_for(self._pool.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait_for(self._pool.__aexit__(kind, error, trace))
        self._stop()

    async def _settle(self) -> None:
        """Who still waits for a result gets one before the loop ends."""
        if waiting := asyncio.all_tasks() - {asyncio.current_task()}:
            _, late = await asyncio.wait(waiting, timeout=1)
            for task in late:
                task.cancel()

    def _stop(self) -> None:
        self.wait_for(self._settle())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the pool's loop. If the waiting is interrupted, so is the work."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def pool(self) -> SandboxPool:
        """The pool itself, for coroutines that are given to `wait_for`."""
        return self._pool

    @property
    def tier(self) -> str:
        return self._pool.tier

    @property
    def features(self) -> Mapping[str, Any]:
        return self._pool.features

    def run(self, code: str, **arguments: Any) -> RunResult:
        """As `SandboxPool.run`."""
        return self.wait_for(self._pool.run(code, **arguments))

    def execute(self, command: Sequence[str], **arguments: Any) -> RunResult:
        """As `SandboxPool.execute`."""
        return self.wait_for(self._pool.execute(command, **arguments))

    def call(self, code: str, function: str, *arguments: Any, **named: Any) -> CallResult:
        """As `SandboxPool.call`."""
        return self.wait_for(self._pool.call(code, function, *arguments, **named))

    def session(self, **arguments: Any) -> SyncSession:
        """As `SandboxPool.session`, for a plain `with`."""
        return SyncSession(self, self._pool.session(**arguments))


class SyncSession:
    def __init__(self, pool: SyncSandboxPool, session: Session) -> None:
        self._pool, self._session = pool, session

    def __enter__(self) -> SyncSession:
        self._pool.wait_for(self._session.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.wait_for(self._session.__aexit__(kind, error, trace))

    def run(self, cell: str, *, wall_s: float | None = None) -> CellResult:
        """As `Session.run`."""
        return self._pool.wait_for(self._session.run(cell, wall_s=wall_s))

    def fork(self) -> SyncSession:
        """As `Session.fork`."""
        return SyncSession(self._pool, self._pool.wait_for(self._session.fork()))

    def close(self) -> None:
        """As `Session.close`."""
        self._pool.wait_for(self._closed())

    async def _closed(self) -> None:
        self._session.close()


def run_sync(code: str, *, limits: Limits | None = None, tier: str | None = None, **arguments: Any) -> RunResult:
    """One program in a pool of its own, which takes some tenths of a second. `arguments`: of SandboxPool.run."""
    with SyncSandboxPool(tier=tier, workers=1, limits=limits) as pool:
        return pool.run(code, **arguments)
