"""`check_env` passes a good environment and names the fault of every bad one."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from agentrl import (
    AssistantMessage,
    Env,
    Episode,
    Message,
    StepResult,
    Task,
    UserMessage,
    check_env,
    reward,
    tool,
)
from agentrl.env import CheckResult
from agentrl.env.registry import SHIPPED
from agentrl.errors import UnknownNameError
from tests.env.orders import Orders

CHECKS = ["tasks", "tools", "contract", "reset", "determinism", "oracle", "null policy"]


def failures(env: str | Callable[[], Env]) -> dict[str, str]:
    results = check_env(env)
    assert [result.name for result in results] == CHECKS
    return {result.name: result.detail for result in results if not result.passed}


def test_a_good_environment_passes() -> None:
    assert failures(Orders) == {}
    assert failures("tests.env.orders:Orders") == {}
    assert check_env(Orders, n_tasks=3)[5] == CheckResult(
        "oracle", True, "the oracle gets the whole outcome reward, 1, on 3 tasks"
    )


@pytest.mark.parametrize("env_id", sorted(SHIPPED))
def test_shipped_environments_pass(env_id: str, request: pytest.FixtureRequest) -> None:
    if env_id == "gsm8k":
        request.getfixturevalue("real_data")
    assert failures(env_id) == {}


def test_an_environment_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(UnknownNameError):
        check_env("no-such-env")


class Forgetful(Orders):
    """Does not build its orders anew."""

    def setup(self, task: Task) -> None:
        if not hasattr(self, "db"):
            super().setup(task)
            self.db.pop("#W0000", None)

    @tool
    async def delete_order(self, order_id: str = "#W0007") -> str:
        """Delete.

        Args:
            order_id: Which.
        """
        self.db.clear()
        return "deleted"

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        action = super().oracle(task, messages)
        return action.model_copy(
            update={"tool_calls": tuple(call.model_copy(update={"name": "delete_order"}) for call in action.tool_calls)}
        )


class Chancy(Orders):
    """Draws from the process's chance."""

    @tool
    async def find_order(self, order_id: str) -> float:
        """Find.

        Args:
            order_id: Which.
        """
        return random.random()


class Unstable(Orders):
    """Its tasks depend on how many were made before."""

    made = itertools.count()

    def make_task(self, seed: int) -> Task:
        return Task(f"task {next(self.made)}", answer="x", data={"order": 1})


class Leaky(Orders):
    """One question is both in train and in test."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [super().make_task(1), super().make_task(2 if split == "train" else 3)]


class Hopeless(Orders):
    """The oracle's answer is wrong."""

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        return AssistantMessage(content="wrong")


class NoOracle(Orders):
    oracle = Env.oracle  # type: ignore[assignment]


class Generous(Orders):
    """Rewards silence."""

    @reward("outcome")
    def correct(self, task: Task, episode: Episode) -> float:
        return 1.0


class Undescribed(Orders):
    @tool
    def mute(self, word: str) -> str:
        return word


class HalfDescribed(Orders):
    @tool
    def half(self, word: str) -> str:
        """Say."""
        return word


class Broken(Orders):
    @reward("outcome")
    def correct(self, task: Task, episode: Episode) -> float:
        return 1 / 0


@pytest.mark.parametrize(
    ("env", "check", "message"),
    [
        (Forgetful, "reset", "reset must forget the last episode"),
        (Chancy, "determinism", "draw all chance from self.rng"),
        (Unstable, "tasks", "must be pure functions"),
        (Leaky, "tasks", "1 tasks are both in train and in test"),
        (Hopeless, "oracle", "the oracle got an outcome of 0 of 1"),
        (NoOracle, "oracle", r"no oracle: define oracle\(self, task, messages\)"),
        (Generous, "null policy", "an empty answer gets the whole outcome reward"),
        (Undescribed, "tools", "tool mute has no description"),
        (HalfDescribed, "tools", "tool half does not describe word"),
        (Broken, "contract", "VerifierFailure: reward Broken.correct broke: ZeroDivisionError"),
    ],
)
def test_every_fault_is_named(env: type[Env], check: str, message: str) -> None:
    found = failures(env)
    assert check in found
    assert re.search(message, found[check])


class Loose(Env):
    """A plain environment whose step returns whatever it is told to."""

    result: Any = None
    first: Any = (UserMessage(content="hi"),)

    def make_task(self, seed: int) -> Task:
        return Task(f"hi {seed}")

    async def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Any:
        return self.first, {}

    async def step(self, action: AssistantMessage) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "step must return StepResult"),
        (((), 1.0, True, False), "step must return StepResult"),
        (StepResult(["text"], 1.0, True, False, {}), "step must give messages"),  # type: ignore[list-item]
        (StepResult("text", 1.0, True, False, {}), "step must give the new messages as a sequence"),  # type: ignore[arg-type]
        (StepResult((), 1.0, 1, False, {}), "terminated and truncated must be bools"),  # type: ignore[arg-type]
        (StepResult((), float("nan"), True, False, {}), "a finite number is wanted"),
        (StepResult((), 1.0, True, False, {"rewards": {"reward": 0.5}}), "sum to 0.5"),
        (StepResult((), 1.0, True, False, {"rewards": {"other": 1.0}}), "which Loose.reward_kinds does not name"),
    ],
)
def test_a_step_that_breaks_the_contract_is_named(result: Any, message: str) -> None:
    def factory() -> Env:
        env = Loose()
        env.result = result
        return env

    assert message in failures(factory)["contract"]


def test_a_reset_that_breaks_the_contract_is_named() -> None:
    def factory() -> Env:
        env = Loose()
        env.first = ({"role": "user", "content": "hi"},)
        return env

    assert "reset must give messages" in failures(factory)["contract"]


def test_every_environment_made_for_a_check_is_closed() -> None:
    open_now = 0

    class Counted(Orders):
        def __init__(self) -> None:
            nonlocal open_now
            super().__init__()
            open_now += 1

        def close(self) -> None:
            nonlocal open_now
            open_now -= 1

    assert failures(Counted) == {}
    assert open_now == 0
