"""The environment contract: Gymnasium's five-tuple, with async methods and messages.

An observation is the new messages only; an action is the assistant's message with its parsed tool calls. One env
object plays one episode at a time. Plain `def` methods are accepted wherever `async def` stands here; they run in a
thread. Knows nothing of tokens, engines or objectives.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from agentrl.env.task import Task
from agentrl.errors import EnvDefinitionError
from agentrl.messages import AssistantMessage, Message
from agentrl.trajectory import RewardKind

Observation = Sequence[Message]

_WORD_STARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class StepResult(NamedTuple):
    """What an action led to.

    `info` may hold `rewards` (named parts whose sum is `reward`), `state_id` (of the state that the next action will be
    chosen in) and `metrics` (numbers about the episode so far, kept with the trajectory).
    """

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]


class Env(ABC):
    """What a user extends. `ToolEnv` is the usual way to; this is for everything else."""

    name: ClassVar[str] = ""  # how people call it; a subclass that gives none has its class name in snake case
    max_turns: int = 8  # the rollout cuts the episode after this many actions

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = _WORD_STARTS.sub("_", cls.__name__).lower()

    def make_task(self, seed: int) -> Task:
        """Make a procedural task. Give this, or `tasks` for a data set."""
        raise EnvDefinitionError(
            f"{type(self).__name__} gives no tasks: define make_task(self, seed) for procedural tasks, or "
            "tasks(self, split) for a data set"
        )

    def tasks(self, split: str) -> Sequence[Task] | None:
        """The tasks of a data set's split ("train", "test", ...), or None where tasks are procedural."""
        return None

    @property
    def reward_kinds(self) -> Mapping[str, RewardKind]:
        """Every reward part's name and whether it speaks of the outcome or of the process."""
        return {"reward": "outcome"}

    @property
    def tool_schemas(self) -> Sequence[Mapping[str, Any]]:
        """The tools offered to the policy, as OpenAI function schemas."""
        return ()

    @abstractmethod
    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, Mapping[str, Any]] | Awaitable[tuple[Observation, Mapping[str, Any]]]:
        """Begin the episode of `options["task"]`, or of a task made from `seed`. Forget the last episode."""

    @abstractmethod
    def step(self, action: AssistantMessage) -> StepResult | Awaitable[StepResult]:
        """Take the policy's action."""

    def conclude(self, action: AssistantMessage | None) -> Mapping[str, float] | Awaitable[Mapping[str, float]]:
        """Name the reward parts still due when a limit (tokens, turns, time) cuts the episode.

        `action` is what was said last and not passed to `step`, if anything.
        """
        return {}

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage | Awaitable[AssistantMessage]:
        """What the best player would say next. Used to check the env, and by `scripted:oracle`."""
        raise EnvDefinitionError(f"{type(self).__name__} has no oracle: define oracle(self, task, messages)")

    def demonstrate(
        self, task: Task, messages: Sequence[Message], rng: random.Random
    ) -> AssistantMessage | Awaitable[AssistantMessage]:
        """What a demonstrator for imitation would say next; the oracle unless overridden. `rng` is the episode's."""
        return self.oracle(task, messages)

    def data_faults(self, split: str) -> Sequence[str]:
        """Faults found in the data itself, a line each; evaluations and `agentrl check` show them."""
        return ()

    def close(self) -> Awaitable[None] | None:
        """Give back what the env holds. Called once, after the last episode."""
        return None
