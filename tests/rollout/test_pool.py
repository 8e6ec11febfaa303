"""The pool: bounded, ordered, and nothing left running."""

from __future__ import annotations

import asyncio

import pytest

from agentrl.rollout.pool import run_pool


async def test_results_keep_the_items_order_and_the_bound_holds() -> None:
    running = most = 0

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (item % 3))
        running -= 1
        return item * 10

    assert await run_pool(range(50), work, concurrency=7) == [item * 10 for item in range(50)]
    assert most == 7


async def test_a_slot_is_refilled_as_soon_as_it_frees() -> None:
    """With one slow item and two slots, the other slot plays everything else meanwhile."""
    released = asyncio.Event()
    done: list[int] = []

    async def work(item: int) -> None:
        if item == 0:
            await released.wait()
        done.append(item)
        if len(done) == 9:
            released.set()

    await asyncio.wait_for(run_pool(range(10), work, concurrency=2), 60)
    assert done == [*range(1, 10), 0]


async def test_no_items() -> None:
    async def work(item: int) -> int:
        raise AssertionError

    assert await run_pool([], work, concurrency=3) == []


async def test_an_error_cancels_the_others_and_surfaces_as_itself() -> None:
    cancelled: list[int] = []

    async def work(item: int) -> None:
        if item == 3:
            raise KeyError("three")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(KeyError, match="three"):
        await run_pool(range(8), work, concurrency=4)
    assert sorted(cancelled) == [0, 1, 2]


async def test_cancelling_the_owner_leaves_nothing_running() -> None:
    ended: list[int] = []
    begun = 0

    async def work(item: int) -> None:
        nonlocal begun
        begun += 1
        try:
            await asyncio.sleep(300)
        finally:
            ended.append(item)

    before = asyncio.all_tasks()
    owner = asyncio.create_task(run_pool(range(20), work, concurrency=5))
    while begun < 5:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)  # a sixth would begin about now
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert len(ended) == 5
    assert asyncio.all_tasks() == before
