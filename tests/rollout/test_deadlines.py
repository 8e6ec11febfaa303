"""Deadlines beside `asyncio.timeout`, which they replace on the way of every turn; in a loop whose clock only jumps."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from agentrl.rollout.deadlines import Deadlines


class JumpingLoop(asyncio.SelectorEventLoop):
    """Where others wait, its clock goes on at once to the next timer: no busy machine changes what rings first."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = selectors.DefaultSelector()
        select = selector.select
        selector.select = lambda timeout=None: self.jump(timeout) or select(0)  # type: ignore[method-assign]
        super().__init__(selector)

    def jump(self, timeout: float | None) -> None:
        self.now += timeout or 0.0

    def time(self) -> float:
        return self.now


def in_jumps(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(test(**arguments))

    return run


async def ours(waits: list[float], episode_s: float, wait_s: float) -> list[str]:
    """What becomes of each wait, and at the end of the episode."""
    deadlines, told = Deadlines(episode_s, wait_s), []
    try:
        for seconds in waits:
            deadlines.wait()
            try:
                await asyncio.sleep(seconds)
                late = deadlines.waited()
                assert not late
                told.append("met")
            except asyncio.CancelledError:
                if not deadlines.waited():
                    raise
                told.append("late")
    except asyncio.CancelledError:
        if not deadlines.ended():
            raise
        told.append("over")
    finally:
        deadlines.close()
    return told


async def theirs(waits: list[float], episode_s: float, wait_s: float) -> list[str]:
    """The same with `asyncio.timeout`."""
    told = []
    try:
        async with asyncio.timeout(episode_s):
            for seconds in waits:
                limit = asyncio.timeout(wait_s)
                try:
                    async with limit:
                        await asyncio.sleep(seconds)
                    told.append("met")
                except TimeoutError:
                    told.append("late")
    except TimeoutError:
        told.append("over")
    return told


@pytest.mark.parametrize("seed", range(200))
@in_jumps
async def test_they_ring_as_timeouts_do(seed: int) -> None:
    rng = Random(seed)
    waits = [float(rng.choice((0, 1, 2, 6))) for _ in range(6)]
    limits = rng.choice((5.3, 9.3, 13.3, 99.0)), 3.6
    assert await ours(waits, *limits) == await theirs(waits, *limits)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@in_jumps
async def test_deadlines_that_are_met_set_no_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), []
    call_at = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda when, *rest: timers.append(when) or call_at(when, *rest))
    deadlines = Deadlines(60, 30)
    for _ in range(1000):
        deadlines.wait()
        await asyncio.sleep(0)
        assert not deadlines.waited()
    deadlines.close()
    assert len(timers) == 1


async def cancelled(work: Coroutine[Any, Any, object], after: float) -> bool:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(after)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
        return False
    return True


@in_jumps
async def test_a_cancellation_from_outside_goes_through() -> None:
    assert await cancelled(ours([10.0], 60, 30), 1)


@in_jumps
async def test_a_cancellation_at_the_moment_of_the_deadline_goes_through() -> None:
    async def episode() -> None:
        deadlines = Deadlines(60, 1)
        deadlines.wait()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(3)  # still cleaning up when it is cancelled from outside
            raise
        finally:
            assert not deadlines.waited()

    assert await cancelled(episode(), 2)


@in_jumps
async def test_a_wait_that_swallows_its_deadline_is_as_if_it_had_met_it() -> None:
    deadlines = Deadlines(60, 1)
    deadlines.wait()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(10)
    assert deadlines.waited()
    await asyncio.sleep(0)  # nothing of it is left


@in_jumps
async def test_the_episodes_end_cannot_be_swallowed() -> None:
    deadlines = Deadlines(1, 5)
    deadlines.wait()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(10)
    assert not deadlines.waited()
    with pytest.raises(asyncio.CancelledError):
        deadlines.insist()
    assert deadlines.ended()
    deadlines.wait()
    await asyncio.sleep(2)  # and it ends once
    assert not deadlines.waited()
