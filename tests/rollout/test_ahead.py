"""Playing ahead: how far, how stale, what is dropped, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agentrl.engine.base import Request
from agentrl.env.tasks import TaskSource
from agentrl.errors import EngineFailure, RunStoppedError
from agentrl.rollout.collector import Collector, Demand
from agentrl.trajectory import Completion, Group
from tests.rollout.play_engine import RandomEngine
from tests.rollout.test_collector import RENDERER, SETTINGS, Counting, ids


class Versioned(RandomEngine):
    """Every token has the version of the moment it was sampled at."""

    async def complete(self, request: Request) -> Completion:
        begun = self.version
        completion = await super().complete(request)
        versions = np.full(len(completion.token_ids), self.version, np.int64)
        versions[0] = begun
        return replace(completion, versions=versions)


def ahead(engine: Any, demand: Demand, **changes: Any) -> Collector:
    limits = replace(SETTINGS, **{"concurrency": 100, **changes})
    return Collector(TaskSource(Counting(), "train"), Counting, engine, RENDERER, limits, seed=0, demand=demand)


async def settle() -> None:
    for _ in range(2000):  # of which a held up machine uses one to let one episode go on
        await asyncio.sleep(0)


def begun(engine: RandomEngine) -> set[str]:
    return {episode_id.partition("/")[0] for episode_id in engine.calls}


async def test_only_the_steps_that_staleness_allows_are_begun() -> None:
    engine = Versioned(stop=1.0)
    collector = ahead(engine, Demand(max_staleness=2, steps=5))
    for step in range(5):
        engine.version = step
        groups = await collector.collect(step)
        await settle()
        assert ids(groups) == [f"s{step}g{g}" for g in range(4)]
        last = min(step + 2, 4)
        assert begun(engine) == {f"s{s}g{g}" for s in range(last + 1) for g in range(4)}
        assert all(step - group.oldest_version <= 2 for group in groups)
    assert collector.metrics["ahead_groups"] == 0
    await collector.close()


async def test_strictly_on_policy_nothing_is_in_flight_between_steps() -> None:
    engine = Versioned(stop=1.0)
    collector = ahead(engine, Demand(steps=3))
    before = asyncio.all_tasks()
    for step in range(3):
        engine.version = step
        groups = await collector.collect(step)
        assert asyncio.all_tasks() == before
        assert {group.oldest_version for group in groups} == {step}
    assert begun(engine) == {f"s{s}g{g}" for s in range(3) for g in range(4)}


class Straggler(Versioned):
    """Group s0g0 waits until it is let go."""

    def __init__(self, **options: Any) -> None:
        super().__init__(stop=1.0, **options)
        self.let_go = asyncio.Event()

    async def complete(self, request: Request) -> Completion:
        begun = self.version
        if request.episode_id.startswith("s0g0/"):
            await self.let_go.wait()
        completion = await super().complete(request)
        completion.versions[0] = begun
        return completion


@pytest.mark.parametrize("stale", ["drop", "keep"])
async def test_a_straggler_holds_nobody_up_and_is_dropped_or_kept_once_it_is_stale(stale: Any) -> None:
    engine = Straggler()
    collector = ahead(engine, Demand(max_staleness=1, stale=stale, steps=6))
    collected: list[Sequence[Group]] = []
    metrics = Counter[str]()
    for step in range(6):
        engine.version = step
        if step == 3:
            engine.let_go.set()
            await settle()
        collected.append(await collector.collect(step))
        metrics.update({k: int(v) for k, v in collector.metrics.items() if k.endswith("_groups")})
        await settle()
    names = [name for groups in collected for name in ids(groups)]
    assert "s0g0" not in ids(collected[0])
    assert [len(groups) for groups in collected] == [4] * 6
    assert len(names) == len(set(names)) == 24
    assert metrics["stale_groups"] == 1
    assert ("s0g0" in names) == (stale == "keep")
    await collector.close()


async def test_replacements_are_begun_while_the_learner_learns() -> None:
    """Between two steps a group that is not useful is replaced at once, not when the next step asks."""
    engine = Versioned(stop=1.0)
    demand = Demand(useful=lambda group: group.group_id != "s1g2", refill=1, max_staleness=1, steps=4)
    collector = ahead(engine, demand)
    await collector.collect(0)
    await settle()
    assert "s0more0" in begun(engine)
    engine.version = 1
    groups = await collector.collect(1)
    assert set(ids(groups)) - {"s1g2"} == {"s1g0", "s1g1", "s1g3", "s0more0"}
    await collector.close()


async def test_a_failure_between_two_steps_ends_the_next_one() -> None:
    learning = asyncio.Event()

    async def gone() -> None:
        await learning.wait()
        raise EngineFailure("gone")

    engine = Versioned(before=lambda request: gone() if request.episode_id.startswith("s1") else None, stop=1.0)
    collector = ahead(engine, Demand(max_staleness=1, steps=4), max_failed_share=0.3)
    await collector.collect(0)
    learning.set()
    await settle()
    with pytest.raises(RunStoppedError, match="failed_engine"):
        await collector.collect(1)
    await collector.close()


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_what_is_in_flight_ends_with_the_collector(how: str) -> None:
    Counting.opened = Counting.closed = 0
    engine = Straggler()
    before = asyncio.all_tasks()
    collector = ahead(engine, Demand(max_staleness=3, steps=9))
    if how == "close":
        await collector.collect(0)
        assert engine.running == 0
        assert asyncio.all_tasks() != before
    else:
        engine.before = lambda request: asyncio.sleep(60)
        waiting = asyncio.create_task(collector.collect(0))
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asyncio.all_tasks() == before
    await collector.close()
    assert asyncio.all_tasks() == before
    assert engine.running == 0
    assert Counting.opened - 1 == Counting.closed  # one gives the tasks


async def test_with_oversampling_the_slowest_groups_are_given_up() -> None:
    engine = Straggler()
    collector = ahead(engine, Demand(steps=2), oversample=1.5)
    groups = await collector.collect(0)
    assert len(groups) == 4
    assert "s0g0" not in ids(groups)
    assert collector.metrics["discarded_groups"] == 2
    assert engine.running == 0
    await collector.close()


async def test_loop_lag_is_told() -> None:
    collector = ahead(RandomEngine(stop=1.0, before=lambda request: asyncio.sleep(0.03)), Demand())
    await collector.collect(0)
    assert 0 <= collector.metrics["time/loop_lag_p99_s"] <= collector.metrics["time/loop_lag_max_s"]
