"""Evaluations, really played: scripted policies on real environments, rendered with the byte tokenizer."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentrl.engine.base import Request
from agentrl.engine.scripted import ScriptedEngine
from agentrl.env.registry import make
from agentrl.errors import ConfigError, DataError, RunStoppedError, UnknownNameError
from agentrl.evaluate.evaluate import Progress, evaluate, evaluate_tasks, scenario_tasks
from agentrl.evaluate.statistics import wilson
from agentrl.evaluate.suite import Suite, load_suite
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.settings import RetrySettings, RolloutSettings
from agentrl.trajectory import Completion, Outcome, Trajectory

ROOT = Path(__file__).parents[2]
SUMS = f"{Path(__file__).with_name('sums.py')}:Sums"
ROOMY = RolloutSettings(max_tokens_per_turn=512, max_tokens_per_episode=8192, concurrency=8)


def suite(*scenarios: dict[str, Any]) -> Suite:
    given = [{"name": f"s{i}", "env": SUMS, **scenario} for i, scenario in enumerate(scenarios)]
    return Suite.model_validate({"name": "tested", "scenario": given})


@pytest.fixture
def renderer() -> Renderer:
    return Renderer(ByteTokenizer(), HermesParser())


class Watching(ScriptedEngine):
    """A scripted engine that keeps what it was asked."""

    def __init__(self, script: str) -> None:
        super().__init__(script)
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        return await super().complete(request)


async def test_the_oracle_solves_all_and_silence_nothing(renderer: Renderer) -> None:
    gold = await evaluate(suite({}), ScriptedEngine("oracle"), renderer, rollout=ROOMY)
    (found,) = gold.scenarios
    assert found.result.success == wilson(12, 12)
    assert found.result.reward.mean == 1.5  # the answer, and two turns of 0.25
    assert (found.result.turns, found.result.metrics["tool_calls"], found.result.metrics["called_tool"]) == (2, 1, 1)
    assert found.result.outcomes == {"terminated": 12}
    assert found.data_faults == tuple(f"test task {i} is dull" for i in range(5))
    silence = await evaluate(suite({}), ScriptedEngine("null"), renderer, rollout=ROOMY)
    assert silence.success == wilson(0, 12)


async def test_failures_stand_apart(renderer: Renderer) -> None:
    found = await evaluate(
        suite({"settings": {"broken": 4, "unsolved": 2}}), ScriptedEngine("oracle"), renderer, rollout=ROOMY
    )
    (scenario,) = found.scenarios
    assert found.success == wilson(6, 8)
    assert (found.episodes, found.failed) == (12, 4)
    assert found.outcomes == {"failed_tool": 4, "terminated": 8}
    assert "jammed" in scenario.result.errors["failed_tool"]
    assert scenario.result.reward.n == 8
    json.dumps(found.to_dict(), allow_nan=False)


async def test_limits_of_the_scenario_cut(renderer: Renderer) -> None:
    found = await evaluate(suite({"max_turns": 1}), ScriptedEngine("oracle"), renderer, rollout=ROOMY)
    assert found.outcomes == {"truncated_turns": 12}
    assert (found.truncated, found.success) == (12, wilson(0, 12))
    found = await evaluate(suite({"max_tokens_per_turn": 3}), ScriptedEngine("oracle"), renderer, rollout=ROOMY)
    assert found.outcomes == {"truncated_tokens": 12}


async def test_a_prompt_that_does_not_fit_is_no_failure_of_the_policy(renderer: Renderer) -> None:
    """The prompts of tasks 0 to 9 have a digit less than those of 10 and 11: only these do not fit."""
    watching = Watching("oracle")
    await evaluate(suite({"tasks": 11}), watching, renderer, rollout=ROOMY)
    room = max(len(r.prompt_ids) for r in watching.requests if r.episode_id.startswith("eval10/"))
    shortest = min(len(request.prompt_ids) for request in watching.requests)
    limits = {"max_tokens_per_episode": shortest + 1}
    found = await evaluate(suite(limits), ScriptedEngine("oracle"), renderer, rollout=ROOMY)
    assert room > shortest
    assert found.outcomes == {"truncated_tokens": 10, "unplayed": 2}
    assert (found.episodes, found.failed, found.truncated, found.success.n) == (12, 2, 10, 10)
    assert "raise rollout.max_tokens_per_episode" in found.scenarios[0].result.errors["unplayed"]


async def test_it_stops_as_soon_as_too_many_must_fail(renderer: Renderer) -> None:
    sealed: list[Trajectory] = []
    jammed, one = partial(make, SUMS, broken=12), replace(ROOMY, concurrency=1, retry=RetrySettings(tool=0))
    tasks = scenario_tasks(suite({}).scenarios[0], jammed())
    with pytest.raises(RunStoppedError, match=r"7 of 12 episodes failed.*failed_tool x7: ToolFailure: .*jammed"):
        await evaluate_tasks(jammed, tasks, ScriptedEngine("oracle"), renderer, one, on_done=sealed.append)
    assert len(sealed) == 7
    (scenario,) = (await evaluate(suite({}), ScriptedEngine("oracle"), renderer, rollout=one)).scenarios
    assert scenario.result.failed == 0
    with pytest.raises(RunStoppedError, match="scenario 's0': 7 of 12"):
        await evaluate(suite({"settings": {"broken": 12}}), ScriptedEngine("oracle"), renderer, rollout=one)


async def test_scenarios_keep_their_own_tasks_repeats_and_temperature(renderer: Renderer) -> None:
    engine = Watching("null")
    both = suite({"tasks": 3}, {"tasks": 2, "repeats": 4, "temperature": 0.5})
    found = await evaluate(both, engine, renderer, rollout=ROOMY)
    assert [s.result.episodes for s in found.scenarios] == [3, 8]
    assert [list(s.result.pass_at) for s in found.scenarios] == [[], [4]]
    assert [r.sampling.temperature for r in engine.requests] == [0.0] * 3 + [0.5] * 8
    ids = [t.task_id for t in found.scenarios[1].result.trajectories]
    assert ids == [ids[0]] * 4 + [ids[4]] * 4
    assert ids[0] != ids[4]


async def test_repeats_can_be_set_from_outside_and_differ_in_their_seeds(renderer: Renderer) -> None:
    engine = Watching("null")
    found = await evaluate(suite({"tasks": 3}), engine, renderer, rollout=ROOMY, repeats=5)
    assert found.episodes == 15
    assert [len(attempts) for attempts in found.scenarios[0].result.successes] == [5, 5, 5]
    assert len({r.sampling.seed for r in engine.requests}) == 15


async def test_equal_seeds_play_alike_and_others_differ(renderer: Renderer) -> None:
    async def seeds(seed: int, own_seed: int = 0) -> set[int]:
        engine = Watching("null")
        await evaluate(suite({"tasks": 4, "seed": own_seed}), engine, renderer, rollout=ROOMY, seed=seed)
        return {r.sampling.seed for r in engine.requests}

    assert await seeds(1) == await seeds(1)
    assert not await seeds(1) & await seeds(2)
    assert not await seeds(1) & await seeds(1, own_seed=7)


async def test_progress_counts_up(renderer: Renderer) -> None:
    seen: list[Progress] = []
    scenario = {"tasks": 6, "settings": {"broken": 2}}
    await evaluate(suite(scenario), ScriptedEngine("oracle"), renderer, rollout=ROOMY, on_progress=seen.append)
    assert [p.done for p in seen] == [1, 2, 3, 4, 5, 6]
    assert (seen[-1].scenario, seen[-1].total, seen[-1].failed) == ("s0", 6, 2)


async def test_evaluate_tasks_is_greedy_whatever_the_rollout_samples_with(renderer: Renderer) -> None:
    engine = Watching("oracle")
    tasks = list(make(SUMS).tasks("test") or ())
    found = await evaluate_tasks(partial(make, SUMS, unsolved=3), tasks, engine, renderer, ROOMY, seed=3)
    assert {r.sampling.temperature for r in engine.requests} == {0.0}
    assert ROOMY.temperature == 1.0
    assert found.success == wilson(9, 12)
    assert found.metrics["called_tool"] == 1.0
    assert [t.task_id for t in found.trajectories] == [t.id for t in tasks]
    assert all(t.outcome is Outcome.TERMINATED for t in found.trajectories)


async def test_no_tasks_is_unknown(renderer: Renderer) -> None:
    found = await evaluate_tasks(partial(make, SUMS), [], ScriptedEngine("null"), renderer, ROOMY)
    assert (found.episodes, found.success.n) == (0, 0)


@pytest.mark.parametrize(
    ("scenario", "error", "told"),
    [
        ({"env": "calculater"}, UnknownNameError, "did you mean 'calculator'"),
        ({"env": "calculator"}, ConfigError, "makes them without end"),
        ({"tasks": 13}, ConfigError, "asks for 13 tasks.*has 12"),
        ({"split": "tests"}, DataError, "tests"),
        ({"settings": {"brokn": 1}}, ConfigError, "broken"),
    ],
)
async def test_scenarios_that_cannot_be_played(
    renderer: Renderer, scenario: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        await evaluate(suite(scenario), ScriptedEngine("null"), renderer)


@pytest.mark.parametrize("name", ["smoke", "calculator"])
async def test_shipped_suites_are_solved_by_the_oracle(renderer: Renderer, name: str) -> None:
    loaded = load_suite(ROOT / "scenarios" / "suites" / f"{name}.toml")
    found = await evaluate(loaded, ScriptedEngine("oracle"), renderer)
    assert (found.success.mean, found.failed, found.truncated) == (1.0, 0, 0)
    assert {s.result.metrics["called_tool"] for s in found.scenarios} == {1.0}


@pytest.mark.parametrize(("script", "solved"), [("gold", 1319), ("null", 0)])
@pytest.mark.usefixtures("real_data")
async def test_real_gsm8k(renderer: Renderer, script: str, solved: int) -> None:
    found = await evaluate(load_suite(ROOT / "scenarios" / "suites" / "gsm8k.toml"), ScriptedEngine(script), renderer)
    (scenario,) = found.scenarios
    assert found.success == wilson(solved, 1319)
    assert (found.failed, found.truncated) == (0, 0)
    if script == "gold":
        metrics = scenario.result.metrics
        missed = round(1319 * (metrics["gold_marks"] - metrics["gold_marks_reproduced"]))
        assert missed == len(scenario.data_faults)
