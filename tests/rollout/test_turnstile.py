"""The turnstile: in order, a few at a time, and the loop turns meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
from types import SimpleNamespace

import pytest

from agentrl.rollout import turnstile as module
from agentrl.rollout.garbage import quiet_garbage
from agentrl.rollout.turnstile import Turnstile


def work(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def test_where_there_is_time_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 7.0))  # a busy machine takes time from us
    turnstile, turns = Turnstile(), []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    for _ in range(100):
        await turnstile()
    assert not turns, "the loop turned"


async def test_many_at_once_go_on_in_order_and_the_loop_is_punctual() -> None:
    """Told by turns of the loop, not by a clock: whatever holds the machine up would look like an unpunctual loop."""
    turnstile, order, ready = Turnstile(), [], asyncio.Event()
    turn, at = 0, []

    async def count_turns() -> None:
        nonlocal turn
        while len(order) < 300:
            turn += 1
            await asyncio.sleep(0)

    async def episode(number: int) -> None:
        await ready.wait()
        await turnstile()
        work(0.002)
        order.append(number)
        at.append(turn)

    async with asyncio.TaskGroup() as group:
        group.create_task(count_turns())
        for number in range(300):
            group.create_task(episode(number))
        await asyncio.sleep(0)
        ready.set()
    assert order == list(range(300))
    assert len(set(at)) > 300 / 16, "as if all had gone on at once"


async def test_who_is_cancelled_while_waiting_holds_nobody_up() -> None:
    turnstile, done = Turnstile(), []

    async def episode(number: int) -> None:
        await turnstile()
        work(0.006)
        done.append(number)

    tasks = [asyncio.create_task(episode(number)) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[5:15]:
        task.cancel()
    await asyncio.wait(tasks)
    assert done == [0, 1, 2, 3, 4, 15, 16, 17, 18, 19]
    await asyncio.wait_for(episode(20), 60)


def test_garbage_is_collected_as_before_once_the_block_ends() -> None:
    before = gc.get_threshold()
    with quiet_garbage():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() > before
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
