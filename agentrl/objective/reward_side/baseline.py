"""Slot `baseline`: what is taken off the credit.

What comes in: [T] the return of each trajectory. What goes out: the numbers to subtract. Each trajectory counts once,
and failed ones are not in the batch at all. A group of one has no peers to be compared with: where a group baseline
is used, its advantage is 0 (verl's GRPO and RLOO leave the raw score there; prime-rl and SkyRL give 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.reward_side.groups import group_means, group_sizes, group_sums
from agentrl.objective.reward_side.levels import Level, Leveled

Scope = Literal["none", "batch", "group"]


class Baseline(Protocol):
    scope: ClassVar[Scope]  # whose returns it compares with

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled: ...


@dataclass(frozen=True, slots=True)
class NoBaseline:
    """b = 0."""

    scope: ClassVar[Scope] = "none"

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled:
        return Leveled(Level.TRAJECTORY, np.zeros_like(returns))


@dataclass(frozen=True, slots=True)
class BatchMean:
    """b = mean of R over the batch. It holds R_i itself, so the gradient is (1 - 1/T) times the unbiased one."""

    scope: ClassVar[Scope] = "batch"

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled:
        mean = returns.mean() if len(returns) else 0.0
        return Leveled(Level.TRAJECTORY, np.full_like(returns, mean))


@dataclass(frozen=True, slots=True)
class GroupMean:
    """b_i = mean of R over i's group. It holds R_i itself, so the gradient is (1 - 1/G) times the unbiased one."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled:
        return Leveled(Level.TRAJECTORY, group_means(batch, returns))


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """b_i = mean of R over i's group without i: R_i - b_i = G/(G-1) (R_i - mean), unbiased (2402.14740)."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled:
        others = np.maximum(group_sizes(batch) - 1, 1)
        return Leveled(Level.TRAJECTORY, (group_sums(batch, returns) - returns) / others)


BASELINES: Mapping[str, type] = {
    "none": NoBaseline,
    "batch_mean": BatchMean,
    "group_mean": GroupMean,
    "leave_one_out": LeaveOneOut,
}
