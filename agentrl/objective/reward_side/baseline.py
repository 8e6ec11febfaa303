"""Slot `baseline`: what is taken off the credit.

What comes in: rewards, and the credit made of them. What goes out: the numbers to subtract. Each trajectory counts
once, and failed ones are not in the batch at all. A group of one has no peers to be compared with: where a group
baseline is used, its advantage is 0 (verl's GRPO and RLOO leave the raw score there; prime-rl and SkyRL give 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.objective.reward_side.base import Baseline, Scope
from agentrl.objective.reward_side.groups import group_means, group_sizes, group_sums
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, total_returns


@dataclass(frozen=True, slots=True)
class NoBaseline(Baseline):
    """b = 0."""

    scope: ClassVar[Scope] = "none"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        return Leveled(Level.TRAJECTORY, np.zeros(x.batch.n_trajectories))


@dataclass(frozen=True, slots=True)
class BatchMean(Baseline):
    """b = mean of R over the batch. It holds R_i itself, so the gradient is (1 - 1/T) times the unbiased one."""

    scope: ClassVar[Scope] = "batch"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        returns = total_returns(x.batch, rewards)
        return Leveled(Level.TRAJECTORY, np.full_like(returns, returns.mean() if len(returns) else 0.0))


@dataclass(frozen=True, slots=True)
class GroupMean(Baseline):
    """b_i = mean of R over i's group. It holds R_i itself, so the gradient is (1 - 1/G) times the unbiased one."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        return Leveled(Level.TRAJECTORY, group_means(x.batch, total_returns(x.batch, rewards)))


@dataclass(frozen=True, slots=True)
class LeaveOneOut(Baseline):
    """b_i = mean of R over i's group without i: R_i - b_i = G/(G-1) (R_i - mean), unbiased (2402.14740)."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        returns = total_returns(x.batch, rewards)
        others = np.maximum(group_sizes(x.batch) - 1, 1)
        return Leveled(Level.TRAJECTORY, (group_sums(x.batch, returns) - returns) / others)


BASELINES: Mapping[str, type] = {
    "none": NoBaseline,
    "batch_mean": BatchMean,
    "group_mean": GroupMean,
    "leave_one_out": LeaveOneOut,
}
