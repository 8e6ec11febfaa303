"""The courier env: what its rewards and state ids promise, which credit through states relies on."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.env import StepResult, Task, check_env
from agentrl.envs.courier import CLOSED, RIGHT, ROADS, Courier
from agentrl.errors import ConfigError, EnvFailure
from agentrl.messages import AssistantMessage, ToolCall, UserMessage
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.episode import Job, run_episode
from agentrl.rollout.settings import RolloutSettings
from agentrl.trajectory import succeeded


async def travel(env: Courier, task: Task, *words: str, seed: int = 0) -> tuple[list[str], list[StepResult]]:
    """The state ids that were passed, and the results, of an episode in which `words` are said."""
    _, info = await env.reset(seed=seed, options={"task": task})
    states, results = [info["state_id"]], []
    for word in words:
        result = await env.step(AssistantMessage(content=word))
        states.append(result.info["state_id"])
        results.append(result)
    return states, results


def wrong(task: Task) -> str:
    return next(road for road in ROADS if road != task.answer)


def test_every_road_is_right_for_some_goods_and_no_right_one_is_closed() -> None:
    assert set(RIGHT.values()) == set(ROADS)
    assert RIGHT.keys() == CLOSED.keys()
    for goods, closed in CLOSED.items():
        assert len(set(closed)) == 2
        assert set(closed) <= set(ROADS) - {RIGHT[goods]}


def test_a_task_is_a_pure_function_of_its_seed_and_all_goods_come_up() -> None:
    tasks = [Courier().make_task(seed) for seed in range(400)]
    assert tasks == [Courier(forks=2).make_task(seed) for seed in range(400)]
    assert {task.data["goods"] for task in tasks} == set(RIGHT)
    assert all(task.answer == RIGHT[task.data["goods"]] and task.data["goods"] in task.prompt for task in tasks)


@pytest.mark.parametrize("forks", [1, 3])
async def test_the_first_word_alone_decides_the_outcome(forks: int) -> None:
    env = Courier(forks)
    for seed in range(20):
        task = env.make_task(seed)
        for first, delivered in ((task.answer, 1.0), (wrong(task), 0.0), ("nowhere", 0.0)):
            _, results = await travel(env, task, first, *["sea"] * forks)
            assert [r.terminated for r in results] == [False] * forks + [True]
            assert [r.info["rewards"].get("delivered") for r in results] == [None] * forks + [delivered]
            assert results[-1].info["metrics"] == {"right_road": delivered}


async def test_paid_at_once_the_outcome_comes_with_the_first_turn() -> None:
    env = Courier(2, pays="at once")
    task = env.make_task(1)
    for first, delivered in ((task.answer, 1.0), (wrong(task), 0.0)):
        _, results = await travel(env, task, first, "dale", "dale")
        assert [r.info["rewards"].get("delivered") for r in results] == [delivered, None, None]


async def test_a_tip_depends_on_chance_alone_as_long_as_a_road_is_named() -> None:
    env = Courier(4, tip=0.25)
    task = env.make_task(2)
    seen: Counter[float] = Counter()
    for seed in range(300):
        tips = []
        for first, word in ((task.answer, ROADS[0]), (wrong(task), ROADS[-1])):
            _, results = await travel(env, task, first, *[word] * 4, seed=seed)
            assert "tip" not in results[0].info["rewards"]
            tips.append([r.info["rewards"]["tip"] for r in results[1:]])
        assert tips[0] == tips[1]
        seen.update(tips[0])
    assert seen.keys() == {0.0, 0.25}
    assert abs(seen[0.25] / seen.total() - 0.5) < 0.06  # 1200 draws: four standard deviations


async def test_no_road_no_tip() -> None:
    env = Courier(50)
    _, results = await travel(env, env.make_task(0), "dale", *["Dale.", "", "dale fell"] * 16)
    assert {r.info["rewards"]["tip"] for r in results[1:]} == {0.0}


async def test_a_call_names_no_road() -> None:
    env = Courier(1)
    task = env.make_task(0)
    await env.reset(seed=0, options={"task": task})
    call = ToolCall(id="1", name="go", arguments={})
    result = await env.step(AssistantMessage(content=task.answer, tool_calls=(call,)))
    assert result.info["metrics"] == {"right_road": 0.0}


async def test_equal_states_have_equal_futures_and_unequal_outcomes_unequal_states() -> None:
    """Same chance, same words from there on: whoever shares a state gets the same rewards from it."""
    env = Courier(5)
    task = env.make_task(3)
    futures: dict[str, set[tuple[float, ...]]] = {}
    for seed in range(40):
        rng = random.Random(seed)
        words = [rng.choice([*ROADS, "nowhere"]), *(rng.choice(ROADS) for _ in range(5))]
        states, results = await travel(env, task, *words, seed=0)
        for k, state in enumerate(states[:-1]):
            futures.setdefault(state, set()).add(tuple(r.reward for r in results[k:]))
        assert len(set(states)) == len(states)
    start = futures.pop(task.data["goods"])
    assert len(start) == 2
    assert all(len(following) == 1 for following in futures.values())
    assert len(futures) == 5 * 2  # on the right road, or not


async def test_states_of_different_goods_are_different() -> None:
    env = Courier(1)
    tasks = {env.make_task(seed).data["goods"]: env.make_task(seed) for seed in range(200)}
    states = [tuple((await travel(env, task, "dale", "dale"))[0]) for task in tasks.values()]
    assert len({state for passed in states for state in passed}) == sum(map(len, states))


async def test_the_demonstrator_names_open_roads_blindly_at_every_fork() -> None:
    env = Courier()
    task = next(task for task in map(env.make_task, range(100)) if task.data["goods"] == "fish")
    start = [UserMessage(content=task.prompt)]
    for messages in (start, [*start, AssistantMessage(content="dale"), UserMessage(content="Fork 2. Road?")]):
        said = Counter([(await env.demonstrate(task, messages, random.Random(seed))).content for seed in range(800)])
        assert said.keys() == set(ROADS) - set(CLOSED["fish"])
        assert all(abs(n / 800 - 0.25) < 0.06 for n in said.values())


async def test_played_by_the_rollout_states_kinds_and_success_are_recorded() -> None:
    env = Courier(2)
    task = env.make_task(5)
    renderer = Renderer(ByteTokenizer(), HermesParser())

    async def played(*words: str, limit: int = 10_000) -> object:
        engine = ScriptedEngine(canned(words))
        settings = RolloutSettings(max_tokens_per_episode=limit)
        return await run_episode(Job(task, "g", 0), env, engine, renderer, settings, episode_id="e")

    right = await played(task.answer, "dale", "dale")
    assert succeeded(right)
    assert right.reward_kinds == {"delivered": "outcome", "tip": "process"}
    goods = task.data["goods"]
    assert [t.state_id for t in right.turns] == [goods, f"{goods}/1/0", f"{goods}/1/1"]
    assert not succeeded(await played(wrong(task), "dale", "dale"))
    cut = await played(task.answer, "dale", limit=len(right.segments[0]) - 8)
    assert cut.outcome.truncated
    assert not succeeded(cut)


async def test_no_step_after_the_end() -> None:
    env = Courier(1)
    await travel(env, env.make_task(0), "dale", "dale")
    with pytest.raises(EnvFailure, match="reset"):
        await env.step(AssistantMessage(content="dale"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"forks": 0}, "forks"), ({"tip": -0.1}, "tip"), ({"tip": float("nan")}, "tip"), ({"pays": "never"}, "pays")],
)
def test_wrong_settings_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Courier(**settings)


@pytest.mark.parametrize("settings", [{}, {"forks": 1}, {"forks": 12, "pays": "at once"}])
def test_it_keeps_the_contract(settings: dict[str, object]) -> None:
    assert [result for result in check_env(lambda: Courier(**settings)) if not result.passed] == []
