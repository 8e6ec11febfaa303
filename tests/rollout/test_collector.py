"""The collector: groups in order, seeds that are the run's own, no barrier, honest failures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agentrl.engine.base import Request
from agentrl.engine.scripted import ScriptedEngine
from agentrl.env.base import Env, StepResult
from agentrl.env.task import Task
from agentrl.env.tasks import TaskSource
from agentrl.errors import EngineFailure, RunStoppedError
from agentrl.messages import AssistantMessage, Message, UserMessage
from agentrl.objective.batch import Batch
from agentrl.render.parser import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.collector import Collector, EnvPool, play
from agentrl.rollout.episode import Job
from agentrl.rollout.settings import RolloutSettings
from agentrl.trajectory import Group, Outcome
from tests.rollout.play_engine import RandomEngine

RENDERER = Renderer(ByteTokenizer(), HermesParser())
SETTINGS = RolloutSettings(groups_per_step=4, group_size=3, max_tokens_per_episode=5000, concurrency=5)


class Counting(Env):
    """Says the task's number back; two turns."""

    opened = 0
    closed = 0

    def __init__(self) -> None:
        type(self).opened += 1
        self.turn = 0

    def make_task(self, seed: int) -> Task:
        return Task(f"number {seed % 1000}")

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Sequence[Message], Mapping[str, Any]]:
        assert options is not None
        self.turn = 0
        return [UserMessage(content=options["task"].prompt)], {}

    async def step(self, action: AssistantMessage) -> StepResult:
        self.turn += 1
        return StepResult([UserMessage(content="on")], 0.5, self.turn == 2, False, {})

    async def close(self) -> None:
        type(self).closed += 1


class DataSet(Counting):
    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(f"{split} {i}") for i in range(6)]


def make_collector(
    engine: Any, *, seed: int = 0, env: type[Counting] = Counting, greedy: bool = False, **changes: Any
) -> Collector:
    settings = RolloutSettings(**{**{f: getattr(SETTINGS, f) for f in SETTINGS.__slots__}, **changes})
    return Collector(TaskSource(env(), "train"), env, engine, RENDERER, settings, seed=seed, greedy=greedy)


async def test_groups_hold_the_episodes_of_one_task_in_order() -> None:
    groups = await make_collector(RandomEngine()).collect(2)
    assert [group.group_id for group in groups] == ["s2g0", "s2g1", "s2g2", "s2g3"]
    for group in groups:
        assert len(group.trajectories) == 3
        assert {t.task_id for t in group.trajectories} == {group.task_id}
        assert {t.group_id for t in group.trajectories} == {group.group_id}
    seeds = [t.seed for group in groups for t in group.trajectories]
    assert len(set(seeds)) == len(seeds)


async def test_a_step_depends_on_the_seed_and_the_step_alone() -> None:
    whole = make_collector(RandomEngine(), seed=1)
    await whole.collect(0)
    later = await whole.collect(1)
    resumed = await make_collector(RandomEngine(), seed=1).collect(1)
    other = await make_collector(RandomEngine(), seed=2).collect(1)

    assert facts(later) == facts(resumed)
    assert facts(later) != facts(other)


async def test_a_data_set_is_gone_through_once_a_pass_in_an_order_of_the_pass() -> None:
    collector = make_collector(RandomEngine(), env=DataSet, groups_per_step=3, group_size=1)
    steps = [[g.task_id for g in await collector.collect(step)] for step in range(4)]
    every = {Task(f"train {i}").id for i in range(6)}
    assert set(steps[0] + steps[1]) == every == set(steps[2] + steps[3])
    assert steps[0] + steps[1] != steps[2] + steps[3]


def facts(groups: Sequence[Group]) -> list[Any]:
    return [(g.group_id, t.task_id, t.seed, t.segments[0].token_ids.tolist()) for g in groups for t in g.played]


def lacking(*counts: int) -> Any:
    """As many groups are missing as stand here, round by round; what was asked is kept in `asked`."""

    def missing(groups: Sequence[Group], *, wanted: int, rounds: int) -> int:
        missing.asked.append((len(groups), wanted, rounds))  # type: ignore[attr-defined]
        return counts[rounds] if rounds < len(counts) else 0

    missing.asked = []  # type: ignore[attr-defined]
    return missing


async def test_missing_groups_are_played_in_further_rounds() -> None:
    missing = lacking(3, 2)
    groups = await make_collector(RandomEngine()).collect(2, missing)
    assert missing.asked == [(4, 4, 0), (7, 4, 1), (9, 4, 2)]
    ids = [group.group_id for group in groups]
    assert ids == [*(f"s2g{g}" for g in range(4)), "s2r0g0", "s2r0g1", "s2r0g2", "s2r1g0", "s2r1g1"]
    assert all(len(group.trajectories) == 3 for group in groups)
    assert len({t.seed for group in groups for t in group.trajectories}) == 27
    assert {t.group_id for group in groups for t in group.trajectories} == set(ids)


async def test_further_rounds_are_a_function_of_seed_step_and_round() -> None:
    """Whatever was played before, and however many groups the round before lacked."""
    whole = make_collector(RandomEngine(), seed=1)
    await whole.collect(0, lacking(2))
    later = facts(await whole.collect(1, lacking(2, 2)))
    assert later == facts(await make_collector(RandomEngine(), seed=1).collect(1, lacking(2, 2)))
    assert later[:12] == facts(await make_collector(RandomEngine(), seed=1).collect(1))
    fewer = facts(await make_collector(RandomEngine(), seed=1).collect(1, lacking(1, 2)))
    assert later[-6:] == fewer[-6:]
    assert later[-6:] != facts(await make_collector(RandomEngine(), seed=2).collect(1, lacking(2, 2)))[-6:]


async def test_further_rounds_of_a_data_set_play_other_tasks_while_there_are_any() -> None:
    collector = make_collector(RandomEngine(), env=DataSet, groups_per_step=2, group_size=1)
    every = {Task(f"train {i}").id for i in range(6)}
    for step in range(3):
        tasks = [group.task_id for group in await collector.collect(step, lacking(2, 2, 2))]
        assert set(tasks[:6]) == every
        assert set(tasks[6:]) == set(tasks[:2])
    whole = make_collector(RandomEngine(), env=DataSet, groups_per_step=6, group_size=1)
    orders = [[group.task_id for group in await whole.collect(step, lacking(6))][6:] for step in range(3)]
    assert {frozenset(order) for order in orders} == {frozenset(every)}
    assert len({tuple(order) for order in orders}) > 1


async def test_failures_of_further_rounds_are_counted_over_the_step() -> None:
    def before(request: Request) -> None:
        if "r0" in request.episode_id:
            raise EngineFailure("gone")

    groups = await make_collector(RandomEngine(before=before, stop=1.0)).collect(0, lacking(1))
    assert sum(t.outcome.failed for group in groups for t in group.trajectories) == 3
    with pytest.raises(RunStoppedError, match="6 of 18 episodes failed"):
        await make_collector(RandomEngine(before=before, stop=1.0), max_failed_share=0.3).collect(0, lacking(2))


async def test_each_task_is_played_greedily_once_where_it_is_asked() -> None:
    temperatures: dict[str, list[float]] = {}

    def before(request: Request) -> None:
        temperatures.setdefault(request.episode_id.partition("/")[0], []).append(request.sampling.temperature)

    plain = await make_collector(RandomEngine(stop=1.0)).collect(1)
    collector = make_collector(RandomEngine(before=before, stop=1.0), greedy=True)
    groups = await collector.collect(1, lacking(1))
    assert len(groups) == 5
    for group in groups:
        assert group.greedy is not None
        assert group.greedy.task_id == group.task_id
        assert group.played == (*group.trajectories, group.greedy)
        assert sorted(temperatures[group.group_id]) == [0.0] * 2 + [1.0] * 6  # two turns an episode
    assert facts([replace(group, greedy=None) for group in groups[:4]]) == facts(plain)
    assert all(group.greedy is None and group.played == group.trajectories for group in plain)


async def test_a_greedy_episode_that_failed_is_kept_as_failed_and_counted() -> None:
    def before(request: Request) -> None:
        if request.sampling.temperature == 0:
            raise EngineFailure("gone")

    groups = await make_collector(RandomEngine(before=before, stop=1.0), greedy=True).collect(0)
    assert [group.greedy and group.greedy.outcome for group in groups] == [Outcome.FAILED_ENGINE] * 4
    assert all(len(group.valid) == 3 for group in groups)
    assert np.isnan(Batch.from_groups(groups).greedy_rewards).all()
    with pytest.raises(RunStoppedError, match="4 of 16 episodes failed"):
        await make_collector(RandomEngine(before=before, stop=1.0), greedy=True, max_failed_share=0.2).collect(0)


async def test_no_turn_waits_for_another_episode() -> None:
    """One episode hangs in its first turn; all others play to their end meanwhile."""
    release = asyncio.Event()
    done: list[str] = []

    def before(request: Request) -> object:
        return release.wait() if request.episode_id.startswith("slow") else None

    jobs = [Job(Task("slow"), "slow", 0), *(Job(Task("x"), f"g{i}", i) for i in range(30))]

    def on_done(trajectory: Any) -> None:
        done.append(trajectory.group_id)
        if len(done) == 30:
            release.set()

    engine = RandomEngine(before=before, stop=1.0)
    call = play(jobs, make_env=Counting, engine=engine, renderer=RENDERER, settings=SETTINGS, on_done=on_done)
    trajectories = await asyncio.wait_for(call, 10)
    assert done[-1] == "slow"
    assert [t.group_id for t in trajectories] == [job.group_id for job in jobs]


async def test_environments_are_used_again_unless_they_failed_and_all_are_closed() -> None:
    Counting.opened = Counting.closed = 0
    broken = {"count": 0}

    def before(request: Request) -> None:
        if request.episode_id.startswith("bad"):
            broken["count"] += 1
            raise EngineFailure("gone")

    jobs = [Job(Task("x"), "bad" if i % 10 == 3 else "good", i) for i in range(40)]
    engine = RandomEngine(before=before, stop=1.0)
    trajectories = await play(jobs, make_env=Counting, engine=engine, renderer=RENDERER, settings=SETTINGS)
    assert [t.outcome.failed for t in trajectories] == [i % 10 == 3 for i in range(40)]
    assert Counting.opened <= SETTINGS.concurrency + broken["count"]
    assert Counting.closed == Counting.opened


async def test_a_run_whose_machinery_is_broken_stops_and_says_what_broke() -> None:
    def before(request: Request) -> None:
        if "g0" in request.episode_id or "g1" in request.episode_id:
            raise EngineFailure("no memory left")

    groups = await make_collector(RandomEngine(before=before, stop=1.0), max_failed_share=0.5).collect(0)
    outcomes = [t.outcome for g in groups for t in g.trajectories]
    assert outcomes.count(Outcome.FAILED_ENGINE) == 6
    assert [len(g.valid) for g in groups] == [0, 0, 3, 3]
    with pytest.raises(RunStoppedError, match=r"6 of 12 episodes failed.*failed_engine x6: EngineFailure: no memory"):
        await make_collector(RandomEngine(before=before, stop=1.0), max_failed_share=0.4).collect(0)


async def test_an_environment_that_failed_plays_no_further_episode() -> None:
    class FailsFirst(Counting):
        """Its first episode breaks; a second one in the same object would be seen."""

        def __init__(self) -> None:
            super().__init__()
            self.broken = False

        async def step(self, action: AssistantMessage) -> StepResult:
            assert not self.broken, "used again"
            self.broken = True
            raise OSError("gone")

    jobs = [Job(Task("x"), f"g{i}", i) for i in range(6)]
    call = play(jobs, make_env=FailsFirst, engine=RandomEngine(stop=1.0), renderer=RENDERER, settings=SETTINGS)
    assert {t.error for t in await call} == {"EnvFailure: step of FailsFirst: OSError: gone"}


async def test_an_environment_that_cannot_be_made_or_closed_stops_nothing() -> None:
    made = []

    class Stubborn(Counting):
        async def close(self) -> None:
            raise OSError("busy")

    def make() -> Env:
        made.append(1)
        if len(made) == 2:
            raise OSError("no port left")
        return Stubborn()

    jobs = [Job(Task("x"), f"g{i}", i) for i in range(6)]
    engine = RandomEngine(stop=1.0, before=lambda request: asyncio.sleep(0.001))
    with pytest.warns(RuntimeWarning, match=r"Stubborn.close: OSError: busy"):
        trajectories = await play(jobs, make_env=make, engine=engine, renderer=RENDERER, settings=SETTINGS)
    failed = [t for t in trajectories if t.outcome.failed]
    assert [(t.outcome, t.reward) for t in failed] == [(Outcome.FAILED_ENV, None)]
    assert "could not be made: OSError: no port left" in (failed[0].error or "")


async def test_a_run_whose_prompts_have_no_room_stops_and_says_so() -> None:
    with pytest.raises(RunStoppedError, match=r"truncated_tokens x12: the prompt has \d+ tokens"):
        await make_collector(RandomEngine(), max_tokens_per_episode=10).collect(0)


async def test_cancelling_a_collection_leaves_no_task_and_no_open_environment() -> None:
    Counting.opened = Counting.closed = 0
    engine = RandomEngine(before=lambda request: asyncio.sleep(60))
    before = asyncio.all_tasks()
    pool = EnvPool(Counting)
    jobs = [Job(Task("x"), "g", i) for i in range(20)]
    call = play(jobs, make_env=pool, engine=engine, renderer=RENDERER, settings=SETTINGS)
    task = asyncio.create_task(call)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pool.close()
    assert asyncio.all_tasks() == before
    assert engine.running == 0
    assert Counting.closed == Counting.opened == 5


async def test_a_thousand_scripted_episodes_at_once() -> None:
    settings = RolloutSettings(max_tokens_per_episode=5000, concurrency=1000)
    jobs = [Job(Task("x"), f"g{i}", i) for i in range(1000)]
    engine = ScriptedEngine("null", latency_s=0.01)
    trajectories = await play(jobs, make_env=Counting, engine=engine, renderer=RENDERER, settings=settings)
    assert all(t.reward == 1.0 and len(t.turns) == 2 for t in trajectories)
