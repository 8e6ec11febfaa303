"""Rewards: named parts of an environment, each declared outcome or process.

What comes in: methods marked with `@reward`, and views of turns and episodes. What goes out: one number a part, weight
applied. A part that breaks or gives no finite number is a `VerifierFailure`, never a 0. Knows nothing of tools.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np

from agentrl.env.calling import invoke, mark, marked
from agentrl.env.task import Task
from agentrl.env.view import Episode, TurnView
from agentrl.errors import AgentRLError, EnvDefinitionError, VerifierFailure
from agentrl.trajectory import RewardKind

F = TypeVar("F", bound=Callable[..., Any])

MARK = "reward"
_TAKES = {"outcome": ("task", "episode"), "process": ("turn",)}  # beside self


@dataclass(frozen=True, slots=True)
class RewardPart:
    """A named part of the reward: its value, expected in [0, 1], counts `weight` times."""

    name: str
    kind: RewardKind
    weight: float


def reward(kind: RewardKind, weight: float = 1.0) -> Callable[[F], F]:
    """Mark a method as a reward part; it may be `async def`, or `def`: that runs in a thread, which costs a little.

    Args:
        kind: "outcome": `(self, task, episode) -> float`, asked once, when the episode has ended.
            "process": `(self, turn) -> float`, asked after every turn.
        weight: what its value is multiplied with.

    Raises:
        EnvDefinitionError: another kind, or a weight that is not a finite number.
    """
    if kind not in get_args(RewardKind):
        raise EnvDefinitionError(f'@reward wants a kind, got {kind!r}; write @reward(kind="outcome") or kind="process"')
    if not math.isfinite(weight):
        raise EnvDefinitionError(f"@reward wants a finite weight, got {weight!r}")

    def decorate(function: F) -> F:
        mark(function, MARK, (kind, float(weight)))
        return function

    return decorate


class Rubric:
    """The reward parts of one environment object, in the order of their definition.

    Raises:
        EnvDefinitionError: there is no part, or one does not take what its kind is given.
    """

    def __init__(self, env: object) -> None:
        owner = type(env)
        self._owner = owner.__name__
        marks: dict[str, tuple[RewardKind, float]] = marked(owner, MARK)
        self.parts = tuple(RewardPart(name, kind, weight) for name, (kind, weight) in marks.items())
        if not self.parts:
            raise EnvDefinitionError(
                f'{self._owner} has no reward: mark a method with @reward(kind="outcome") or @reward(kind="process")'
            )
        methods = [(part, getattr(env, part.name)) for part in self.parts]
        for part, method in methods:
            _check_signature(self._owner, part, method)
        self._outcome = [(part, method) for part, method in methods if part.kind == "outcome"]
        self._process = [(part, method) for part, method in methods if part.kind == "process"]

    async def process(self, turn: TurnView) -> dict[str, float]:
        """The process parts of a turn.

        Raises:
            VerifierFailure: a part broke.
        """
        return {part.name: await self._value(part, method, turn) for part, method in self._process}

    async def outcome(self, task: Task, episode: Episode) -> dict[str, float]:
        """The outcome parts of an episode that has ended.

        Raises:
            VerifierFailure: a part broke.
        """
        return {part.name: await self._value(part, method, task, episode) for part, method in self._outcome}

    async def _value(self, part: RewardPart, method: Callable[..., Any], *views: object) -> float:
        try:
            value = await invoke(method, *views)
        except AgentRLError:
            raise
        except (Exception, SystemExit) as error:
            raise VerifierFailure(f"reward {self._owner}.{part.name} broke: {type(error).__name__}: {error}") from error
        if not isinstance(value, numbers.Real | np.bool_) or not math.isfinite(value):
            raise VerifierFailure(f"reward {self._owner}.{part.name} wants a finite number, got {value!r}")
        return part.weight * float(value)


def _check_signature(owner: str, part: RewardPart, method: Callable[..., Any]) -> None:
    try:
        inspect.signature(method).bind(*_TAKES[part.kind])
    except TypeError:
        raise EnvDefinitionError(
            f"{owner}.{part.name}{inspect.signature(method)}: a reward of kind {part.kind!r} is called with "
            f"(self, {', '.join(_TAKES[part.kind])})"
        ) from None
