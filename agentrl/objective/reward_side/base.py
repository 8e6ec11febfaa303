"""What a component of each slot of the reward side is.

What comes in and goes out stands at each call. The class variables declare what a component reads and does; the rules
in `soundness` ask for them, never for names. Arrays: T trajectories, K turns, A action tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from agentrl.objective.batch import Float64Array
from agentrl.objective.reward_side.levels import Leveled
from agentrl.objective.reward_side.rewards import Parts, RewardInputs, Rewards, Which

Scope = Literal["none", "batch", "group", "turn", "state", "own"]  # whom a trajectory or a turn is compared with


class Shape(ABC):
    """Slot `shape`: a step on the way from the environment's reward parts to the rewards that are credited."""

    scope: ClassVar[Scope] = "none"

    @abstractmethod
    def __call__(self, x: RewardInputs, parts: Parts) -> Parts: ...


class KlInReward(ABC):
    """Slot `kl_in_reward`: a penalty or bonus at each action token, as a number; no gradient flows through it."""

    @property
    def needs_reference(self) -> bool:
        return False

    @property
    def needs_teacher(self) -> bool:
        return False

    @abstractmethod
    def __call__(self, x: RewardInputs) -> Float64Array | None:
        """[A] added to the reward of each action token; None: nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit(ABC):
    """Slot `credit`: the return that each trajectory, turn or token answers for."""

    parts: Which = "all"  # which reward parts it counts; the baseline and scale of the slots beside it count the same
    varies: ClassVar[bool] = True  # tokens of one trajectory can get different credit
    needs_values: ClassVar[bool] = False  # reads the critic
    needs_token_values: ClassVar[bool] = False  # reads it at every action token, not at turns alone
    needs_states: ClassVar[bool] = False  # reads state ids

    @abstractmethod
    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled: ...


class Baseline(ABC):
    """Slot `baseline`: what is taken off the credit; at the credit's level or a coarser one."""

    scope: ClassVar[Scope]  # whose returns it compares with
    needs_values: ClassVar[bool] = False
    needs_states: ClassVar[bool] = False
    needs_greedy: ClassVar[bool] = False  # reads the reward of a greedy rollout of each task

    @abstractmethod
    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled: ...


class Scale(ABC):
    """Slot `scale`: what becomes of the centred credit."""

    scope: ClassVar[Scope]
    of_returns: ClassVar[bool] = False  # divides by a spread of whole returns
    centres: ClassVar[bool] = False  # takes a mean off as well

    @abstractmethod
    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled: ...


class Term(ABC):
    """Slot `terms`: an advantage of its own, added to the one of credit, baseline and scale."""

    varies: ClassVar[bool] = True
    scope: ClassVar[Scope] = "group"
    reads_parts: ClassVar[bool] = False  # tells the named parts of the rewards apart
    needs_states: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled: ...
