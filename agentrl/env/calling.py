"""Calling what environment authors wrote: `def` or `async def`, one or many at once, and finding it on their classes.

What comes in: functions and classes. What goes out: results. A plain function runs in a thread, so it cannot stall the
event loop; a coroutine function is awaited in place, without a task, a thread or a timer of its own. Knows nothing of
tools, rewards and environments.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from agentrl.env.threads import Threads
from agentrl.errors import EnvDefinitionError

T = TypeVar("T")

_threads = Threads()


async def invoke(method: Callable[..., T | Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
    """Await a coroutine function; run a plain one in a thread, and await what it returned if that is awaitable."""
    if _is_coroutine_function(method):
        value: T = await method(*args, **kwargs)  # type: ignore[misc]
        return value
    return await settle(await _threads.run(method, *args, **kwargs))


def _is_coroutine_function(method: Callable[..., Any]) -> bool:
    """As inspect says, which unwraps for as long as a whole call takes: on every turn the plain case comes first."""
    code = getattr(method, "__code__", None)
    return bool(code is not None and code.co_flags & inspect.CO_COROUTINE) or inspect.iscoroutinefunction(method)


def hung_calls() -> int:
    """Blocking calls that nobody waits for any more and that have not ended: each has a thread."""
    return _threads.hung


async def settle(value: T | Awaitable[T]) -> T:
    """The value itself, awaited first if it is awaitable."""
    if inspect.isawaitable(value):
        awaited: T = await value
        return awaited
    return value


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run them at once and return their results in order. A single one is awaited in place.

    When one fails the others are cancelled; of several failures the first in order is raised.
    """
    if not coroutines:
        return []
    if len(coroutines) == 1:
        return [await coroutines[0]]
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(coroutine) for coroutine in coroutines)
    except BaseExceptionGroup as failures:
        errors = [task.exception() for task in tasks if not task.cancelled()]
        first = next((error for error in errors if error is not None), failures)
        raise first from None
    return [task.result() for task in tasks]


def mark(function: Any, key: str, value: object) -> None:
    """Note `value` on a function (or static or class method) under `key`, for `marked` to find.

    Raises:
        EnvDefinitionError: `function` is something else.
    """
    plain = _plain(function)
    if plain is None:
        raise EnvDefinitionError(
            f"a function or method is wanted below @{key}, got {function!r}: write `def` or `async def`"
        )
    vars(plain)[key] = value


def read_mark(function: Any, key: str) -> Any:
    """What `mark` noted on the function, or None."""
    plain = _plain(function)
    return None if plain is None else vars(plain).get(key)


def marked(owner: type, key: str) -> dict[str, Any]:
    """Names and marks of a class's marked methods: base classes first, then in the order of definition.

    Raises:
        EnvDefinitionError: a subclass overrides a marked method with something unmarked.
    """
    found: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        for name, value in vars(base).items():
            note = read_mark(value, key)
            if note is not None:
                found[name] = note
            elif name in found and value is None:
                del found[name]
            elif name in found:
                raise EnvDefinitionError(
                    f"{base.__name__}.{name} overrides a method marked @{key} and is not marked itself: put @{key} "
                    f"above it, or write `{name} = None` to drop it"
                )
    return found


def _plain(function: Any) -> Any:
    inner = function.__func__ if isinstance(function, staticmethod | classmethod) else function
    return inner if inspect.isfunction(inner) else None
