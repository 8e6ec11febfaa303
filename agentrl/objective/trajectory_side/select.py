"""Slot `filters`: which samples count.

What comes in: groups, or the batch made from them. What goes out: fewer groups, or a smaller loss mask. Failed
trajectories are dropped always and first: they have no reward, so they are in no baseline. Knows no loss.

Dropping takes a trajectory out of the statistics as well; masking keeps its reward in them and trains on none of its
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from agentrl.objective.batch import Batch
from agentrl.trajectory import BoolArray, Group

SAME_REWARD = 1e-9  # rewards closer than this are equal: sums of the same parts in another order


@runtime_checkable
class GroupFilter(Protocol):
    def keep(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that stay."""
        ...


@runtime_checkable
class TokenFilter(Protocol):
    def mask(self, batch: Batch) -> BoolArray:
        """[N] the tokens that stay in the loss."""
        ...


@dataclass(frozen=True, slots=True)
class ZeroVarianceDrop:
    """Drop the groups whose rewards are all equal: group baselines make nothing of them (DAPO, 2503.14476)."""

    def keep(self, groups: Sequence[Group]) -> list[Group]:
        return [group for group in groups if not zero_variance(group)]


@dataclass(frozen=True, slots=True)
class TruncatedMask:
    """Train on no token of a trajectory that a limit cut; its reward stays in the baselines (DAPO, 2503.14476)."""

    def mask(self, batch: Batch) -> BoolArray:
        whole = np.array([not t.outcome.truncated for t in batch.trajectories], np.bool_)
        return whole[batch.token_trajectory]


def drop_failed(groups: Sequence[Group]) -> list[Group]:
    """Groups with their valid trajectories only; groups that have none are gone."""
    kept = [Group(group.group_id, group.task_id, group.valid) for group in groups]
    return [group for group in kept if group.trajectories]


def zero_variance(group: Group) -> bool:
    """True where all valid trajectories have the same reward, which is so for a single one."""
    rewards = [t.reward for t in group.trajectories if t.reward is not None]
    return max(rewards, default=0.0) - min(rewards, default=0.0) <= SAME_REWARD


FILTERS: Mapping[str, type] = {"zero_variance_drop": ZeroVarianceDrop, "truncated_mask": TruncatedMask}
