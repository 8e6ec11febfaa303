"""The collector: groups in order, seeds that are the run's own, no barrier, honest failures."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.engine.base import Request
from agentrl.engine.scripted import ScriptedEngine
from agentrl.env.base import Env, StepResult
from agentrl.env.task import Task
from agentrl.env.tasks import TaskSource
from agentrl.errors import EngineFailure, RunStoppedError, SandboxFailure
from agentrl.messages import AssistantMessage, Message, UserMessage
from agentrl.objective.batch import Batch
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.collector import Collector, Demand
from agentrl.rollout.envs import EnvPool
from agentrl.rollout.episode import Job
from agentrl.rollout.play import Recover, play
from agentrl.rollout.settings import RetrySettings, RolloutSettings
from agentrl.trajectory import Group, Outcome
from tests.rollout.play_engine import RandomEngine

RENDERER = Renderer(ByteTokenizer(), HermesParser())
NEVER = RetrySettings(engine=0, env=0, tool=0, sandbox=0, verifier=0)
SETTINGS = RolloutSettings(groups_per_step=4, group_size=3, max_tokens_per_episode=5000, concurrency=5, retry=NEVER)


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
    engine: Any,
    *,
    seed: int = 0,
    env: type[Counting] = Counting,
    greedy: bool = False,
    demand: Demand | None = None,
    recover: Recover | None = None,
    **changes: Any,
) -> Collector:
    limits = replace(SETTINGS, **changes)
    tasks = TaskSource(env(), "train")
    return Collector(tasks, env, engine, RENDERER, limits, seed=seed, greedy=greedy, demand=demand, recover=recover)


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


def useless(*names: str) -> Demand:
    """Groups of these names do not count; others are played in their place."""
    return Demand(useful=lambda group: group.group_id not in names, refill=2)


def ids(groups: Sequence[Group]) -> list[str]:
    return [group.group_id for group in groups]


async def test_for_a_group_that_is_not_useful_another_one_is_played() -> None:
    collector = make_collector(RandomEngine(), demand=useless("s2g1", "s2g3", "s2more1"))
    groups = await collector.collect(2)
    assert ids(groups) == [*(f"s2g{g}" for g in range(4)), "s2more0", "s2more1", "s2more2"]
    assert all(len(group.trajectories) == 3 for group in groups)
    assert len({t.seed for group in groups for t in group.trajectories}) == 21
    assert collector.metrics["refilled_groups"] == 3
    assert "discarded_groups" not in collector.metrics
    assert ids(await collector.collect(3)) == [f"s3g{g}" for g in range(4)]
    assert "refilled_groups" not in collector.metrics


async def test_refilling_ends_at_its_limit() -> None:
    none = Demand(useful=lambda group: False, refill=2)
    groups = await make_collector(RandomEngine(), demand=none).collect(0)
    assert ids(groups) == [*(f"s0g{g}" for g in range(4)), *(f"s0more{k}" for k in range(8))]
    assert ids(await make_collector(RandomEngine(), demand=replace(none, refill=0)).collect(0)) == ids(groups)[:4]


@given(st.lists(st.booleans(), min_size=16, max_size=16), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_what_a_step_collects_does_not_depend_on_who_was_first(useful: list[bool], seed: int) -> None:
    """Groups end in any order; which tasks are played in place of others is the plan's alone."""
    names = [*(f"s1g{g}" for g in range(4)), *(f"s1more{k}" for k in range(12))]
    wanted = dict(zip(names, useful, strict=True))
    rng = random.Random(seed)

    async def collected(shuffled: bool) -> list[Any]:
        async def wait() -> None:
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)

        engine = RandomEngine(before=(lambda request: wait()) if shuffled else None)
        demand = Demand(useful=lambda group: wanted.get(group.group_id, True), refill=3)
        collector = make_collector(engine, demand=demand)
        return facts(await collector.collect(1))

    assert asyncio.run(collected(True)) == asyncio.run(collected(False))


async def test_other_tasks_of_a_data_set_come_before_the_steps_own() -> None:
    demand = Demand(useful=lambda group: "more" in group.group_id, refill=3)
    collector = make_collector(RandomEngine(), env=DataSet, groups_per_step=2, group_size=1, demand=demand)
    every = {Task(f"train {i}").id for i in range(6)}
    for step in range(3):
        own = [group.task_id for group in await collector.collect(step) if "more" not in group.group_id]
        others = [collector._plan.more(step, place).sampled[0].task.id for place in range(6)]
        assert set(own + others[:4]) == every
        assert set(others[4:]) == set(own)


async def test_failed_episodes_are_played_anew_and_kept_apart() -> None:
    broken: set[str] = set()

    def before(request: Request) -> None:
        group, _, number = request.episode_id.partition("/")
        if group in ("s0g1", "s0g2") and len(broken) < 4 and request.episode_id not in broken:
            broken.add(request.episode_id)
            raise EngineFailure(f"gone {number}")

    collector = make_collector(RandomEngine(before=before, stop=1.0), retry=RetrySettings(backoff_s=0.001))
    groups = await collector.collect(0)
    assert [len(group.valid) for group in groups] == [3, 3, 3, 3]
    failed = [t for group in groups for t in group.failed]
    assert [t.outcome for t in failed] == [Outcome.FAILED_ENGINE] * 4
    assert {t.group_id for t in failed} <= {"s0g1", "s0g2"}
    assert collector.metrics["retried/failed_engine"] == 4
    assert len({t.seed for group in groups for t in group.played}) == 16
    assert sum(t.reward is None for group in groups for t in group.played) == 4
    assert Batch.from_groups(groups).n_trajectories == 12


async def test_retries_are_counted_for_each_boundary() -> None:
    class Breaks(Counting):
        tries = 0

        async def reset(self, **options: Any) -> Any:
            type(self).tries += 1
            if type(self).tries <= 2:
                raise SandboxFailure("no room")
            if type(self).tries <= 4:
                raise OSError("env")
            return await super().reset(**options)

    retry = RetrySettings(sandbox=2, env=1, backoff_s=0.0)
    jobs = [Job(Task("x"), "g", 0)]
    limits = replace(SETTINGS, retry=retry)
    (played,) = await play(jobs, make_env=Breaks, engine=RandomEngine(), renderer=RENDERER, settings=limits)
    assert [t.outcome for t in played.failed] == [Outcome.FAILED_SANDBOX] * 2 + [Outcome.FAILED_ENV]
    assert played.trajectory.outcome is Outcome.FAILED_ENV
    assert played.trajectory.reward is None
    assert Breaks.tries == 4


async def test_a_run_stops_by_the_episodes_that_failed_for_good() -> None:
    tries = []

    def before(request: Request) -> None:
        tries.append(1)
        raise EngineFailure("no memory left")

    collector = make_collector(RandomEngine(before=before), retry=RetrySettings(engine=3, backoff_s=0.0))
    with pytest.raises(RunStoppedError, match=r"7 of 12 episodes failed.*failed_engine x7: EngineFailure: no memory"):
        await collector.collect(0)
    assert 28 <= len(tries) <= 48
    assert collector.take_failures() == {"failed_engine": len(tries)}
    assert collector.take_failures() == {}
    await collector.close()


async def test_an_outage_that_fails_every_episode_twice_is_outlived() -> None:
    tries: Counter[str] = Counter()

    def before(request: Request) -> None:
        tries[request.episode_id] += 1
        if len(tries) <= 24:
            raise EngineFailure("gone")

    engine, retry = RandomEngine(before=before, stop=1.0), RetrySettings(engine=3, backoff_s=0.0)
    collector = make_collector(engine, retry=retry, concurrency=12)
    groups = await collector.collect(0)
    assert all(len(group.valid) == 3 for group in groups)
    assert collector.metrics["retried/failed_engine"] == 24


async def test_an_environment_that_cancels_its_own_task_loses_no_group_in_silence() -> None:
    class Cancels(Counting):
        async def step(self, action: AssistantMessage) -> StepResult:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
            return await super().step(action)

    with pytest.raises(RunStoppedError, match="cancelled from within"):
        await make_collector(RandomEngine(stop=1.0), env=Cancels).collect(0)


async def test_the_engine_is_brought_back_before_its_episodes_are_played_anew() -> None:
    gone = [True]

    def before(request: Request) -> None:
        if gone[0]:
            raise EngineFailure("killed")

    async def recover() -> None:
        gone[0] = False

    collector = make_collector(
        RandomEngine(before=before), retry=RetrySettings(engine=1, backoff_s=0.0), recover=recover
    )
    groups = await collector.collect(0)
    assert all(len(group.valid) == 3 for group in groups)


async def test_each_task_is_played_greedily_once_where_it_is_asked() -> None:
    temperatures: dict[str, list[float]] = {}

    def before(request: Request) -> None:
        temperatures.setdefault(request.episode_id.partition("/")[0], []).append(request.sampling.temperature)

    plain = await make_collector(RandomEngine(stop=1.0)).collect(1)
    collector = make_collector(RandomEngine(before=before, stop=1.0), greedy=True, demand=useless("s1g2"))
    groups = await collector.collect(1)
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
    trajectories = [played.trajectory for played in await asyncio.wait_for(call, 60)]
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
    played = await play(jobs, make_env=Counting, engine=engine, renderer=RENDERER, settings=SETTINGS)
    trajectories = [each.trajectory for each in played]
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
    with pytest.raises(RunStoppedError, match=r"5 of 12 episodes failed.*failed_engine x5: EngineFailure: no memory"):
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
    assert {played.trajectory.error for played in await call} == {"EnvFailure: step of FailsFirst: OSError: gone"}


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
        played = await play(jobs, make_env=make, engine=engine, renderer=RENDERER, settings=SETTINGS)
    failed = [each.trajectory for each in played if each.trajectory.outcome.failed]
    assert [(t.outcome, t.reward) for t in failed] == [(Outcome.FAILED_ENV, None)]
    assert "could not be made: OSError: no port left" in (failed[0].error or "")


async def test_a_run_whose_prompts_have_no_room_stops_and_says_so() -> None:
    with pytest.raises(RunStoppedError, match=r"truncated_tokens x7: the prompt has \d+ tokens"):
        await make_collector(RandomEngine(), max_tokens_per_episode=10).collect(0)


async def test_cancelling_a_collection_leaves_no_task_and_no_open_environment() -> None:
    Counting.opened = Counting.closed = 0
    engine = RandomEngine(before=lambda request: asyncio.sleep(60))
    before = asyncio.all_tasks()
    pool = EnvPool(Counting)
    jobs = [Job(Task("x"), "g", i) for i in range(20)]
    call = play(jobs, make_env=pool, engine=engine, renderer=RENDERER, settings=SETTINGS)
    task = asyncio.create_task(call)
    while engine.running < 5:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pool.close()
    assert asyncio.all_tasks() == before
    assert engine.running == 0
    assert Counting.closed == Counting.opened == 5


async def test_a_thousand_scripted_episodes_at_once() -> None:
    limits = RolloutSettings(max_tokens_per_episode=5000, concurrency=1000)
    jobs = [Job(Task("x"), f"g{i}", i) for i in range(1000)]
    engine = ScriptedEngine("null", latency_s=0.01)
    played = await play(jobs, make_env=Counting, engine=engine, renderer=RENDERER, settings=limits)
    assert all(t.reward == 1.0 and len(t.turns) == 2 for t, _ in played)
