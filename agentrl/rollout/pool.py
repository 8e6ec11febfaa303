"""A bounded pool of workers over an iterator, on asyncio's TaskGroup.

What comes in: items, an async function, a bound. What goes out: the results in the items' order. A worker takes the
next item as soon as it is free, so nothing waits for the slowest. The pool owns its tasks: when the caller is
cancelled, or one item raises, every running item is cancelled and awaited before the pool returns; nothing is left
running.

Why not the package `asyncio-pool`: it has been unmaintained since 2022, cancelling its owner leaves children running,
and a task's error does not surface when the pool is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def run_pool(
    items: Sequence[Item], work: Callable[[Item], Awaitable[Result]], *, concurrency: int
) -> list[Result]:
    """Run `work` on every item, at most `concurrency` at once.

    Raises:
        Exception: the first error of `work`, after everything else was cancelled.
    """
    results: dict[int, Result] = {}
    queue = iter(enumerate(items))

    async def worker() -> None:
        for index, item in queue:
            results[index] = await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(items))):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [results[index] for index in range(len(items))]
