"""What every pool of sandboxes can, wherever its sandboxes are. Graders and tools know this much of it and no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .limits import Limits
from .result import CallResult, CellResult, RunResult

if TYPE_CHECKING:
    from .shell import Shell


class PoolSession(Protocol):
    """One process that runs cell after cell: `async with pool.session() as session: await session.run(cell)`."""

    limits: Limits

    @property
    def pool(self) -> Pool: ...

    async def __aenter__(self) -> PoolSession: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def run(self, cell: str, *, wall_s: float | None = None) -> CellResult: ...

    async def fork(self) -> PoolSession: ...

    def close(self) -> None: ...


class PoolDialogue(Protocol):
    """A program that says and hears JSON objects over its descriptor 3: 4 bytes of length, then the object."""

    async def __aenter__(self) -> PoolDialogue: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def send(self, message: Mapping[str, Any]) -> None: ...

    async def receive(self, within_s: float) -> dict[str, Any] | None: ...

    async def end(self) -> RunResult | None: ...


class Pool(Protocol):
    """`SandboxPool` on this machine, `HttpPool` on others; methods are described there. `open_pool` makes one."""

    limits: Limits
    tier: str  # the weakest that runs may have, once it is open

    @property
    def features(self) -> Mapping[str, Any]: ...

    async def __aenter__(self) -> Pool: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def run(
        self,
        code: str,
        *,
        stdin: str | bytes = b"",
        files: Mapping[str, str | bytes] | None = None,
        argv: Sequence[str] = (),
        collect_files: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> RunResult: ...

    async def execute(
        self,
        command: Sequence[str],
        *,
        stdin: str | bytes = b"",
        files: Mapping[str, str | bytes] | None = None,
        collect_files: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> RunResult: ...

    async def call(
        self,
        code: str,
        function: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
    ) -> CallResult: ...

    def session(
        self,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
        idle_s: float | None = None,
    ) -> PoolSession: ...

    def shell(
        self,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
        idle_s: float | None = None,
    ) -> Shell: ...

    def dialogue(self, code: str, *, limits: Limits | None = None) -> PoolDialogue: ...
