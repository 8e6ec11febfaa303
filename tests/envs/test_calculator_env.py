"""The calculator env: tasks, the oracle, the demonstrator that guesses, and the score."""

from __future__ import annotations

import random
import re

import pytest

from agentrl.env import check_env
from agentrl.envs.calculator import Calculator
from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, ToolCall, UserMessage

FORMS = {  # N is a number of two digits
    "easy": r"\d\*\d|N[+-]N",
    "medium": r"N\*N[+-]N",
    "hard": r"\(N\+N\)\*N-N|N\*\(N-N\)\+N|\(N\+N\)\*\(N-N\)|N-\(N\+N\)\*N",
}


@pytest.mark.parametrize("difficulty", FORMS)
def test_a_task_is_a_pure_function_of_its_seed(difficulty: str) -> None:
    tasks = [Calculator(difficulty).make_task(seed) for seed in range(300)]
    assert tasks == [Calculator(difficulty).make_task(seed) for seed in range(300)]
    assert len({task.id for task in tasks}) > 200
    for task in tasks:
        expression = task.prompt.removeprefix("What is ").removesuffix("?")
        assert re.fullmatch(FORMS[difficulty].replace("N", r"[1-9]\d"), expression)
        assert task.answer == str(eval(expression))


@pytest.mark.parametrize("difficulty", FORMS)
async def test_the_oracle_calls_and_is_right(difficulty: str, play) -> None:
    env = Calculator(difficulty)
    for seed in range(20):
        played = await play(env, env.make_task(seed), env.oracle)
        assert (played.reward, played.terminated, played.turns) == (1.0, True, 2)
        assert played.metrics["tool_calls"] == 1
        assert played.metrics["tool_calls"] == 1


async def test_saying_nothing_scores_zero(play) -> None:
    env = Calculator()
    played = await play(env, env.make_task(0), lambda task, messages: AssistantMessage())
    assert (played.reward, played.terminated, played.metrics["tool_calls"]) == (0.0, True, 0)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("{}", 1.0),
        (" ={}\n", 1.0),
        ("= {}.0", 1.0),
        ("{}.", 1.0),
        ("{}1", 0.0),
        ("-{}", 0.0),
        ("The answer is {}", 0.0),
        ("{} or 7", 0.0),
        ("7 {}", 0.0),
        ("=={}", 0.0),
        ("", 0.0),
        ("nan", 0.0),
        ("١٢", 0.0),
    ],
)
async def test_the_answer_is_the_number_alone(text: str, score: float, play) -> None:
    env = Calculator()
    task = env.make_task(3)
    said = AssistantMessage(content=text.format(task.answer))
    assert (await play(env, task, lambda task, messages: said)).reward == score


async def test_thousands_separators_and_negative_numbers(play) -> None:
    env = Calculator("hard")
    tasks = [env.make_task(seed) for seed in range(50)]
    task = next(task for task in tasks if int(task.answer) < -1000)
    said = AssistantMessage(content=f"{int(task.answer):,}")
    assert (await play(env, task, lambda task, messages: said)).reward == 1.0


async def test_a_last_turn_that_calls_is_no_answer(play) -> None:
    env = Calculator()
    task = env.make_task(0)

    def keep_calling(task, messages):
        call = ToolCall(id="1", name="calculator", arguments={"expression": "1/0"})
        return AssistantMessage(content=task.answer, tool_calls=(call,))

    played = await play(env, task, keep_calling)
    assert (played.reward, played.turns) == (0.0, env.max_turns)
    assert played.metrics["tool_errors"] == env.max_turns


async def test_an_answer_that_a_limit_cut_is_no_answer() -> None:
    env = Calculator()
    task = env.make_task(0)
    await env.reset(options={"task": task})
    assert await env.conclude(AssistantMessage(content=task.answer)) == {"correct": 0.0}


async def test_the_metric_is_of_this_episode_alone(play) -> None:
    env = Calculator()
    task = env.make_task(0)
    assert (await play(env, task, env.oracle)).metrics["tool_calls"] == 1
    guess = AssistantMessage(content="=1")
    assert (await play(env, task, lambda task, messages: guess)).metrics["tool_calls"] == 0


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
async def test_the_demonstrator_guesses_its_share(share: float, play) -> None:
    env = Calculator(guess_share=share)
    guesses, lucky, n = 0, 0, 400
    for seed in range(n):
        rng = random.Random(seed)
        played = await play(
            env, env.make_task(seed), lambda task, messages, rng=rng: env.demonstrate(task, messages, rng)
        )
        guesses += played.metrics["tool_calls"] == 0
        if played.metrics["tool_calls"]:
            assert played.reward == 1.0
        else:
            lucky += played.reward == 1.0
    assert abs(guesses / n - share) < 0.1
    assert lucky <= 0.12 * n


def test_a_guess_is_of_about_the_right_size() -> None:
    env = Calculator(guess_share=1.0)
    for seed in range(200):
        task = env.make_task(seed)
        said = env.demonstrate(task, [UserMessage(content=task.prompt)], random.Random(seed))
        guess = int(said.content.removeprefix("="))
        assert abs(guess - int(task.answer)) <= max(9, abs(int(task.answer)) / 10)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(ConfigError, match="guess_share"):
        Calculator(guess_share=share)


@pytest.mark.parametrize("difficulty", ["impossible", "Easy"])
def test_an_unknown_difficulty_is_refused(difficulty) -> None:
    with pytest.raises(ConfigError, match="easy, medium, hard"):
        Calculator(difficulty)


@pytest.mark.parametrize("difficulty", FORMS)
def test_it_keeps_the_contract(difficulty: str) -> None:
    results = check_env(lambda: Calculator(difficulty))
    assert [result for result in results if not result.passed] == []
