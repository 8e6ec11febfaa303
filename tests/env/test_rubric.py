"""Reward parts: weights, kinds, and that a broken one is a failure and never a zero."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from agentrl import AssistantMessage, Episode, Task, ToolEnv, TurnView, reward
from agentrl.errors import EnvDefinitionError, SandboxFailure, VerifierFailure


def judged(give: Any, *, asynchronous: bool = False) -> ToolEnv:
    """An environment whose one outcome part calls `give`."""

    class Judged(ToolEnv):
        def make_task(self, seed: int) -> Task:
            return Task("?")

        @reward("outcome", weight=2.0)
        def part(self, task: Task, episode: Episode) -> Any:
            async def later() -> Any:
                return give()

            return later() if asynchronous else give()

    return Judged()


async def outcome(env: ToolEnv) -> float:
    await env.reset(seed=0)
    return (await env.step(AssistantMessage(content="an answer"))).reward


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("value", [0.5, 1, True, np.float32(0.5), np.int64(1), np.bool_(True)])
async def test_numbers_are_taken_and_weighted(value: Any, asynchronous: bool) -> None:
    got = await outcome(judged(lambda: value, asynchronous=asynchronous))
    assert got == 2.0 * float(value)
    assert type(got) is float


@pytest.mark.parametrize("value", [None, "1.0", float("nan"), float("inf"), [1.0], 1j])
async def test_anything_else_is_a_verifier_failure(value: Any) -> None:
    with pytest.raises(VerifierFailure, match=r"reward Judged\.part wants a finite number, got"):
        await outcome(judged(lambda: value))


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_exception_is_a_verifier_failure_that_names_the_part(asynchronous: bool) -> None:
    with pytest.raises(VerifierFailure, match=r"reward Judged\.part broke: ZeroDivisionError: division by zero"):
        await outcome(judged(lambda: 1 / 0, asynchronous=asynchronous))


async def test_a_boundary_failure_keeps_its_kind() -> None:
    def fail() -> float:
        raise SandboxFailure("gone")

    with pytest.raises(SandboxFailure, match="gone"):
        await outcome(judged(fail))


async def test_process_parts_see_every_turn_and_outcome_parts_the_end() -> None:
    asked: list[tuple[str, int]] = []

    class Watched(ToolEnv):
        max_turns = 3

        @reward("process", weight=0.5)
        async def late(self, turn: TurnView) -> float:
            asked.append(("process", turn.index))
            return turn.index

        @reward("outcome", weight=-1.0)
        def length(self, task: Task, episode: Episode) -> float:
            asked.append(("outcome", len(episode.turns)))
            return 0.25 * len(episode.turns)

    env = Watched()
    await env.reset(options={"task": Task("?")})
    call = {"id": "c", "name": "none", "arguments": {}}
    parts = [
        (await env.step(AssistantMessage.model_validate({"tool_calls": calls}))).info["rewards"]
        for calls in ([call], [call, call], [])
    ]
    assert parts == [{"late": 0.0}, {"late": 0.5}, {"late": 1.0, "length": -0.75}]
    assert asked == [("process", 0), ("process", 1), ("process", 2), ("outcome", 3)]


def test_wrong_declarations_are_refused() -> None:
    with pytest.raises(EnvDefinitionError, match='write @reward\\(kind="outcome"\\)'):
        reward(lambda self: 1.0)  # type: ignore[arg-type]
    with pytest.raises(EnvDefinitionError, match="finite weight"):
        reward("outcome", weight=float("nan"))


def test_a_part_must_take_what_its_kind_is_given() -> None:
    class Wrong(ToolEnv):
        @reward("outcome")
        def part(self, turn: TurnView) -> float:
            return 1.0

    with pytest.raises(EnvDefinitionError, match=r"Wrong\.part.* 'outcome' is called with \(self, task, episode\)"):
        _ = Wrong().reward_kinds


def test_an_environment_without_a_reward_is_refused() -> None:
    class Empty(ToolEnv): ...

    with pytest.raises(EnvDefinitionError, match="Empty has no reward"):
        _ = Empty().reward_kinds


def test_parts_are_inherited_in_order_and_can_be_dropped() -> None:
    class Base(ToolEnv):
        @reward("outcome")
        def a(self, task: Task, episode: Episode) -> float:
            return 1.0

        @reward("process")
        def b(self, turn: TurnView) -> float:
            return 1.0

    class Child(Base):
        a = None  # type: ignore[assignment]

        @reward("outcome")
        def c(self, task: Task, episode: Episode) -> float:
            return 1.0

    assert Base().reward_kinds == {"a": "outcome", "b": "process"}
    assert Child().reward_kinds == {"b": "process", "c": "outcome"}
    assert inspect.isfunction(Base.a)
