"""Slot `filters`: which samples count.

What comes in: groups, or the batch made from them. What goes out: fewer groups, or a smaller loss mask. Failed
trajectories are dropped always and first: they have no reward, so they are in no baseline. Knows no loss.

Dropping takes a trajectory out of the statistics as well; masking keeps its reward in them and trains on none of its
tokens. Rewards are the environment's, before any `shape`. Filters run in order, and what stays keeps its order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from agentrl.objective.batch import Batch
from agentrl.objective.component import at_least, within
from agentrl.objective.trajectory_side.base import GroupFilter, TokenFilter
from agentrl.trajectory import BoolArray, Group

SAME_REWARD = 1e-9  # rewards closer than this are equal: sums of the same parts in another order
_ROUNDING = 1e-9  # 0.07 of 100 groups are 7, not 7.000000000000001


@dataclass(frozen=True, slots=True)
class ZeroVarianceDrop(GroupFilter):
    """Drop the groups whose rewards are all equal: group baselines make nothing of them (DAPO, 2503.14476).

    The rollout plays further groups in their place, at most `refill` times as many as a step has.
    """

    refill: int = 0
    needs_groups: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("filter 'zero_variance_drop'", 0, refill=self.refill)

    def keep(self, groups: Sequence[Group]) -> list[Group]:
        return [group for group in groups if not zero_variance(group)]


@dataclass(frozen=True, slots=True)
class StdTopP(GroupFilter):
    """Keep the ceil(share n) of n groups with the highest std of rewards; of equal ones, the first (StarPO-S,
    2504.20073)."""

    share: float = 0.25
    compares_groups: ClassVar[bool] = True
    needs_groups: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("filter 'std_top_p'", _ROUNDING, 1.0, share=self.share)

    def keep(self, groups: Sequence[Group]) -> list[Group]:
        wanted = math.ceil(self.share * len(groups) - _ROUNDING)
        chosen = sorted(by_variance(groups)[:wanted])
        return [groups[i] for i in chosen]


@dataclass(frozen=True, slots=True)
class SnrTopP(GroupFilter):
    """Keep the groups of highest variance of rewards, as few as hold the share p of the summed variance (RAGEN-2,
    2604.06268). A group of equal rewards is never kept."""

    p: float = 0.9
    compares_groups: ClassVar[bool] = True
    needs_groups: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("filter 'snr_top_p'", _ROUNDING, 1.0, p=self.p)

    def keep(self, groups: Sequence[Group]) -> list[Group]:
        varying = [group for group in groups if not zero_variance(group)]
        order = by_variance(varying)
        variances = np.array([reward_variance(varying[i]) for i in order], np.float64)
        held = np.cumsum(variances) - variances  # by those before it
        enough = held >= self.p * variances.sum() * (1 - _ROUNDING)
        return [varying[i] for i in sorted(np.array(order, np.int64)[~enough].tolist())]


@dataclass(frozen=True, slots=True)
class VoidTurnDrop(GroupFilter):
    """Drop the trajectories that hold a void turn, one with neither a tool call nor an answer (SimpleTIR, 2509.02479).

    The rest of the group stays, and is compared among itself.
    """

    def keep(self, groups: Sequence[Group]) -> list[Group]:
        kept = (
            replace(group, trajectories=tuple(t for t in group.trajectories if not any(turn.void for turn in t.turns)))
            for group in groups
        )
        return [group for group in kept if group.trajectories]


@dataclass(frozen=True, slots=True)
class TruncatedMask(TokenFilter):
    """Train on no token of a trajectory that a limit cut; its reward stays in the baselines (DAPO, 2503.14476)."""

    def mask(self, batch: Batch) -> BoolArray:
        whole = np.array([not t.outcome.truncated for t in batch.trajectories], np.bool_)
        return whole[batch.token_trajectory]


def drop_failed(groups: Sequence[Group]) -> list[Group]:
    """Groups with their valid trajectories only; groups that have none are gone."""
    kept = [replace(group, trajectories=group.valid) for group in groups]
    return [group for group in kept if group.trajectories]


def zero_variance(group: Group) -> bool:
    """True where all valid trajectories have the same reward, which is so for a single one."""
    rewards = [t.reward for t in group.trajectories if t.reward is not None]
    return max(rewards, default=0.0) - min(rewards, default=0.0) <= SAME_REWARD


def reward_variance(group: Group) -> float:
    """Variance (n - 1) of the valid trajectories' rewards; 0 for a single one."""
    rewards = [t.reward for t in group.trajectories if t.reward is not None]
    return float(np.var(rewards, ddof=1)) if len(rewards) > 1 else 0.0


def by_variance(groups: Sequence[Group]) -> list[int]:
    """Indices of the groups, highest variance of rewards first; equal ones in their order."""
    return sorted(range(len(groups)), key=lambda i: -reward_variance(groups[i]))


FILTERS: Mapping[str, type] = {
    "zero_variance_drop": ZeroVarianceDrop,
    "std_top_p": StdTopP,
    "snr_top_p": SnrTopP,
    "void_turn_drop": VoidTurnDrop,
    "truncated_mask": TruncatedMask,
}
