"""The Gymnasium face, checked by Gymnasium itself."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from agentrl import AssistantMessage, Env, StepResult, Task, UserMessage
from agentrl.env.gym import AnyText, GymEnv, register_envs
from agentrl.errors import ConfigError, EnvFailure
from tests.env.orders import Orders

CALL = '<tool_call>\n{"name": "find_order", "arguments": {"order_id": "#W0007"}}\n</tool_call>'


class Count(Env):
    """A plain environment with plain methods and no limit of its own: say the next number."""

    max_turns = 3

    def make_task(self, seed: int) -> Task:
        return Task("count")

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Any:
        self.count = 0
        return [UserMessage(content="0")], {}

    def step(self, action: AssistantMessage) -> StepResult:
        self.count += 1
        return StepResult([UserMessage(content=str(self.count))], 0.0, False, False, {})

    def conclude(self, action: AssistantMessage | None) -> Mapping[str, float]:
        return {"reward": float(self.count)}


@pytest.mark.filterwarnings("error")
def test_gymnasium_checks_our_environment_without_a_warning() -> None:
    gymnasium.register(
        "test/orders-v0", entry_point="agentrl.env.gym:GymEnv", kwargs={"env": "tests.env.orders:Orders"}
    )
    try:
        env = gymnasium.make("test/orders-v0", size=20)
        check_env(env.unwrapped)
        env.close()
    finally:
        del gymnasium.registry["test/orders-v0"]


@pytest.mark.filterwarnings("error")
def test_gymnasium_checks_the_shipped_calculator_without_a_warning() -> None:
    env = gymnasium.make("agentrl/calculator-v0")
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("imports", ["agentrl, gymnasium", "gymnasium, agentrl", "agentrl.env.gym, gymnasium"])
def test_importing_both_is_enough_in_any_order(imports: str) -> None:
    code = f"import {imports}; e = gymnasium.make('agentrl/calculator-v0', difficulty='easy'); e.reset(); e.close()"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=400)


def test_an_episode_in_text() -> None:
    env = GymEnv(Orders(), render_mode="ansi")
    task = env.env.make_task(0)
    text, info = env.reset(seed=1, options={"task": task})
    assert text == f"You are a shop's assistant.\n\n{task.prompt}"
    assert [message["role"] for message in info["messages"]] == ["system", "user"]
    assert [schema["function"]["name"] for schema in info["tools"]] == ["find_order", "delete_order"]

    text, reward, terminated, truncated, info = env.step(CALL)
    assert (text, reward, terminated, truncated) == ('{"item": "table"}', 0.1, False, False)
    assert info["rewards"] == {"valid_call": 0.1}
    text, reward, terminated, truncated, info = env.step(task.answer)
    assert (text, reward, terminated, truncated) == ("", 1.0, True, False)
    rendered = env.render()
    assert rendered is not None
    assert rendered.splitlines()[-2:] == ['tool: {"item": "table"}', f"assistant: {task.answer}"]
    env.close()


def test_seeds_choose_tasks_as_gymnasium_wants() -> None:
    first, second = GymEnv(Orders(size=5000)), GymEnv(Orders(size=5000))
    a = [first.reset(seed=7)[0], first.reset()[0], first.reset()[0]]
    b = [second.reset(seed=7)[0], second.reset()[0], second.reset()[0]]
    assert a == b
    assert len(set(a)) == 3
    assert a[0].endswith(Orders(size=5000).make_task(7).prompt)
    first.close()
    second.close()


def test_a_plain_environment_is_truncated_at_its_max_turns() -> None:
    env = GymEnv(Count())
    assert env.reset()[0] == "0"
    assert [env.step("next")[:4] for _ in range(2)] == [("1", 0.0, False, False), ("2", 0.0, False, False)]
    text, reward, terminated, truncated, info = env.step("next")
    assert (text, reward, terminated, truncated) == ("3", 3.0, False, True)
    assert info["rewards"] == {"reward": 3.0}
    env.close()


async def test_it_works_where_an_event_loop_is_running() -> None:
    env = GymEnv(Orders())
    env.reset(seed=0)
    assert env.step(CALL)[0] == '{"item": "table"}'
    env.close()


def test_closing_twice_is_fine_and_playing_afterwards_is_not() -> None:
    env = GymEnv(Orders())
    env.reset(seed=0)
    env.close()
    env.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(EnvFailure, match="orders: the environment is closed"):
            env.step("hello")
        gc.collect()
    assert not caught  # such as "coroutine was never awaited"


def test_settings_are_refused_as_everywhere() -> None:
    with pytest.raises(ConfigError, match="has no setting 'level'"):
        gymnasium.make("agentrl/calculator-v0", level=3)


def test_registering_twice_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_envs()


def test_the_spaces_hold_any_text_up_to_their_length() -> None:
    space = AnyText(20)
    space.seed(0)
    assert all(space.sample() in space for _ in range(20))
    assert "" in space
    assert "žluťoučký 🐎" in space
    assert "x" * 21 not in space
    assert 3 not in space
