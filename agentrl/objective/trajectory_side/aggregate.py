"""Slot `aggregate`: how tokens' losses become one number, as weights: loss = sum_t w_t l_t.

What comes in: a batch, and [T] the loss tokens of each trajectory that takes part in an update. What goes out: the
weight of each of its tokens. The weights are those of the whole update, so cutting it into micro-batches changes
nothing. "seq" means trajectory, however many rows it has. A trajectory without loss tokens is in no denominator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import at_least
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.trajectory_side.base import Aggregate
from agentrl.trajectory import IntArray


@dataclass(frozen=True, slots=True)
class TokenMean(Aggregate):
    """w = 1 / (all loss tokens)."""

    averages_tokens: ClassVar[bool] = False

    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        return _of_trajectories(np.full(len(counts), 1.0 / max(counts.sum(), 1)))


@dataclass(frozen=True, slots=True)
class SeqMeanTokenMean(Aggregate):
    """w_i = 1 / (S len_i), S the trajectories that have loss tokens."""

    averages_tokens: ClassVar[bool] = True

    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        return _of_trajectories(1.0 / (_sequences(counts) * np.maximum(counts, 1)))


@dataclass(frozen=True, slots=True)
class SeqMeanTokenSum(Aggregate):
    """w = 1 / S: the policy gradient of the mean return."""

    averages_tokens: ClassVar[bool] = False

    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        return _of_trajectories(np.full(len(counts), 1.0 / _sequences(counts)))


@dataclass(frozen=True, slots=True)
class SeqSumConst(Aggregate):
    """w = 1 / (S length): Dr.GRPO's constant (2503.20783), as in TRL and verl 0.9.1. It scales the step size only."""

    length: int
    averages_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        at_least("aggregate 'seq_sum_const'", 1, length=self.length)

    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        return _of_trajectories(np.full(len(counts), 1.0 / (_sequences(counts) * self.length)))


def _of_trajectories(weights: Float64Array) -> Leveled:
    return Leveled(Level.TRAJECTORY, weights)


def _sequences(counts: IntArray) -> int:
    return max(int(np.count_nonzero(counts)), 1)


AGGREGATES: Mapping[str, type] = {
    "token_mean": TokenMean,
    "seq_mean_token_mean": SeqMeanTokenMean,
    "seq_mean_token_sum": SeqMeanTokenSum,
    "seq_sum_const": SeqSumConst,
}
