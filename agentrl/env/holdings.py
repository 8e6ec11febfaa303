"""What tools hold on to between calls: a session for an episode, a pool for as long as environments live.

What comes in: keys, and ways to open what is wanted (async context managers). What goes out: what they opened, the same
for the same key. An environment owns one `Holdings`, ends its episode's part with each episode and closes it with
itself. What is shared belongs to all environments of an event loop that have asked for it, and is closed with the last
of them. Knows nothing of tools and sandboxes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from agentrl.errors import EnvDefinitionError

T = TypeVar("T")
Opener = Callable[[], AbstractAsyncContextManager[T]]

_current: ContextVar[Holdings | None] = ContextVar("holdings", default=None)


class Holdings:
    """What one environment's tools hold. Use it as `async with Holdings() as held:` and `with held.at_hand():` inside.

    The tools of a `ToolEnv` find its own; anything else that calls tools makes one.
    """

    def __init__(self) -> None:
        self._episode: dict[Hashable, tuple[Any, AsyncExitStack]] = {}
        self._leases: dict[Hashable, _Shared] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Holdings:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Inside, and in what is started inside, `holdings()` returns this."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    async def for_episode(self, key: Hashable, opener: Opener[T]) -> T:
        """What `opener` opens, kept until the episode ends or `drop`; calls with an equal key get the same.

        Raises:
            what `opener` raises; then nothing is kept.
        """
        async with self._opening:
            if key not in self._episode:
                async with AsyncExitStack() as stack:
                    value = await stack.enter_async_context(opener())
                    self._episode[key] = value, stack.pop_all()
            found: T = self._episode[key][0]
            return found

    async def shared(self, key: Hashable, opener: Opener[T]) -> T:
        """What `opener` opens, once for all environments of this event loop; closed when the last of them is."""
        lease = self._leases.get(key)
        if lease is None:
            table = _shared.setdefault(asyncio.get_running_loop(), {})
            lease = self._leases[key] = table.setdefault(key, _Shared(table, key))
            lease.users += 1
        value: T = await lease.open(opener)
        return value

    async def drop(self, key: Hashable, value: object) -> None:
        """Close `value`, opened for the episode under `key`, if it is still held: the next call opens anew."""
        if key in self._episode and self._episode[key][0] is value:
            _, stack = self._episode.pop(key)
            await stack.aclose()

    async def end_episode(self) -> None:
        """Close what was opened for the episode, the latest first."""
        while self._episode:
            _, (_, stack) = self._episode.popitem()
            await stack.aclose()

    async def close(self) -> None:
        """End the episode and give back what is shared."""
        await self.end_episode()
        while self._leases:
            _, lease = self._leases.popitem()
            await lease.give_back()


def holdings() -> Holdings:
    """The holdings of the environment whose tool, reward or setup is running.

    Raises:
        EnvDefinitionError: there is none.
    """
    found = _current.get()
    if found is None:
        raise EnvDefinitionError(
            "this keeps something for an episode, and there is no episode: offer it as a tool of a ToolEnv "
            "(extra_tools), or call it inside `with holdings.at_hand():` of a Holdings"
        )
    return found


class _Shared:
    """One thing that several environments use."""

    def __init__(self, table: dict[Hashable, _Shared], key: Hashable) -> None:
        self.users = 0
        self._table, self._key = table, key
        self._lock = asyncio.Lock()
        self._opened: tuple[Any, AsyncExitStack] | None = None

    async def open(self, opener: Opener[Any]) -> Any:
        async with self._lock:
            if self._opened is None:
                async with AsyncExitStack() as stack:
                    value = await stack.enter_async_context(opener())
                    self._opened = value, stack.pop_all()
            return self._opened[0]

    async def give_back(self) -> None:
        self.users -= 1
        if self.users == 0:
            del self._table[self._key]
            if self._opened is not None:
                await self._opened[1].aclose()


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Shared]] = WeakKeyDictionary()
