"""The pool for scripts without an event loop: the same calls, which wait. One thread keeps the pool's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .containers import DEFAULT_IMAGE
from .limits import Limits
from .metrics import Metrics
from .opening import open_pool
from .pool import SandboxPool
from .protocol import PoolSession
from .result import CallResult, CellResult, CommandResult, RunResult, SandboxError
from .shell import Shell

T = TypeVar("T")


class SyncSandboxPool:
    """`with SyncSandboxPool() as pool: result = pool.run(code)`. Arguments as of `open_pool`; for any thread."""

    def __init__(self, **settings: Any) -> None:
        self._pool = open_pool(**settings)
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
    def pool(self) -> Any:
        """The pool itself, a SandboxPool or an HttpPool, for coroutines that are given to `wait_for`."""
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

    def shell(self, **arguments: Any) -> SyncShell:
        """As `SandboxPool.shell`, for a plain `with`."""
        return SyncShell(self, self._pool.shell(**arguments))

    def metrics(self) -> Metrics:
        """As `SandboxPool.metrics`. Raises SandboxError for sandboxes of servers, which have figures of their own."""
        if not isinstance(self._pool, SandboxPool):
            raise SandboxError("these sandboxes are of servers: each tells its figures at GET /v1/status")
        return self._pool.metrics()


H = TypeVar("H", bound=PoolSession | Shell)


class _Held(Generic[H]):
    """What is opened by `with` and closed after it."""

    def __init__(self, pool: SyncSandboxPool, held: H) -> None:
        self._pool, self._held = pool, held

    def __enter__(self) -> Self:
        self._pool.wait_for(self._held.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """As of what it holds: ends the process. May be called more than once."""
        self._pool.wait_for(self._close())

    async def _close(self) -> None:
        self._held.close()


class SyncSession(_Held[PoolSession]):
    """As Session, with plain calls."""

    def run(self, cell: str, *, wall_s: float | None = None) -> CellResult:
        """As `Session.run`."""
        return self._pool.wait_for(self._held.run(cell, wall_s=wall_s))

    def fork(self) -> SyncSession:
        """As `Session.fork`."""
        return SyncSession(self._pool, self._pool.wait_for(self._held.fork()))


class SyncShell(_Held[Shell]):
    """As Shell, with plain calls."""

    def run(self, command: str, **arguments: Any) -> CommandResult:
        """As `Shell.run`."""
        return self._pool.wait_for(self._held.run(command, **arguments))


def run_sync(
    code: str,
    *,
    limits: Limits | None = None,
    tier: str | None = None,
    minimum: str = "landlock",
    addresses: Sequence[str] | None = None,
    token: str = "",
    image: str = DEFAULT_IMAGE,
    **arguments: Any,
) -> RunResult:
    """One program in a pool of its own, which takes some tenths of a second on this machine. The rest as of `open_pool`
    and, for `arguments`, `SandboxPool.run`.
    """
    where: dict[str, Any] = {"tier": tier, "minimum": minimum, "addresses": addresses, "token": token, "image": image}
    with SyncSandboxPool(workers=1, limits=limits, **where) as pool:
        return pool.run(code, **arguments)
