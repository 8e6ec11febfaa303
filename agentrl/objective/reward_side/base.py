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
    rescales: ClassVar[bool] = False  # divides rewards by a spread among peers, who must then be compared with

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
    of_tokens: ClassVar[bool] = False  # a number a token, so values are read at every action token, not at turns alone
    needs_states: ClassVar[bool] = False  # reads state ids
    needs_nodes: ClassVar[bool] = False  # reads node ids, of branched rollouts
    needs_rollouts: ClassVar[bool] = False  # reads `Turn.value`, from fresh rollouts out of a turn's state
    bootstraps: ClassVar[bool] = False  # discounts a critic's values by its own gamma

    @property
    def discount(self) -> float:
        """What a step discounts the returns after it by."""
        return 1.0

    @abstractmethod
    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled: ...


class Baseline(ABC):
    """Slot `baseline`: what is taken off the credit; at the credit's level or a coarser one."""

    scope: ClassVar[Scope]  # whose returns it compares with
    of_whole_returns: ClassVar[bool] = False  # makes sense only where the credit is the trajectory's whole return
    needs_values: ClassVar[bool] = False
    needs_greedy: ClassVar[bool] = False  # reads the reward of a greedy rollout of each task
    needs_rollouts: ClassVar[bool] = False  # reads `Turn.value`, from fresh rollouts out of a turn's state

    @property
    def needs_states(self) -> bool:
        return False

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
    of_tokens: ClassVar[bool] = False  # a number a token
    needs_states: ClassVar[bool] = False
    needs_nodes: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled: ...
