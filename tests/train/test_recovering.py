"""Recovery: who waits for whom while the learner learns, and what is pushed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentrl.errors import EngineFailure
from agentrl.train.recovery import MOST, Recovery


@dataclass
class Breakable:
    """Stands for an engine and its sync: it knows which weights it was given, and under which version."""

    weights: int = 0  # the learner's, at this moment
    version: int = 0
    broken: str | None = None
    pushed: list[tuple[int, int]] = field(default_factory=list)
    starts: bool = True
    fails: int = 0  # pushes that break the engine

    async def start(self) -> None:
        await asyncio.sleep(0.01)
        if not self.starts:
            raise EngineFailure("no memory")
        self.broken = None

    async def close(self) -> None:
        self.broken = "closed"

    async def push(self, version: int) -> float:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            self.broken = "killed"
        if self.broken:
            raise EngineFailure(self.broken)
        self.pushed.append((version, self.weights))
        self.version = version
        return 0.0


def recovery_of(engine: Any, notes: list[str]) -> Recovery:
    return Recovery(engine, engine, notes.append)


async def test_weights_that_are_being_changed_are_not_pushed_under_the_old_version() -> None:
    engine, notes = Breakable(), list[str]()
    recovery = recovery_of(engine, notes)
    async with recovery.lock:
        await recovery.push(0)
    async with recovery.lock:  # the learner learns
        engine.broken = "killed"
        episode = asyncio.create_task(recovery())
        await asyncio.sleep(0.02)
        engine.weights = 1
        await recovery.push(1)
    await episode
    assert engine.pushed == [(0, 0), (1, 1)]
    assert len(notes) == 1


async def test_one_restart_serves_all_and_outlives_the_one_who_asked() -> None:
    engine, notes = Breakable(broken="killed"), list[str]()
    recovery = recovery_of(engine, notes)
    first, *others = [asyncio.create_task(recovery()) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(*others)
    assert first.cancelled()
    assert engine.pushed == [(0, 0)]
    assert len(notes) == 1
    await recovery.close()


async def test_restarts_are_few_and_a_failed_one_is_told() -> None:
    engine, notes = Breakable(broken="killed", starts=False), list[str]()
    recovery = recovery_of(engine, notes)
    for _ in range(MOST + 2):
        await recovery()
    assert len([note for note in notes if "started again" in note]) == MOST
    assert notes[-1] == "the engine did not come back: no memory"
    async with recovery.lock:
        with pytest.raises(EngineFailure):
            await recovery.push(1)


async def test_an_engine_that_breaks_over_a_push_gets_it_after_a_restart() -> None:
    engine, notes = Breakable(fails=1), list[str]()
    recovery = recovery_of(engine, notes)
    engine.weights = 3
    async with recovery.lock:
        await recovery.push(3)
    assert engine.pushed == [(3, 3)]
    engine.broken = "killed"
    waiting = asyncio.create_task(recovery())
    await asyncio.sleep(0)
    await recovery.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
