"""Waiting that cancelling does not cut short: for what would be left behind otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def surely(work: Awaitable[T]) -> T:
    """Its result. If this task is cancelled meanwhile, the work goes on to its end first. Let it be short."""
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return future.result()
