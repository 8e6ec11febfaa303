"""Slot `aggregate`: how tokens' losses become one number, as weights: loss = sum_t w_t l_t.

What comes in: a batch, and [T] the loss tokens of each trajectory that takes part in an update. What goes out: the
weight of each of its tokens. The weights are those of the whole update, so cutting it into micro-batches changes
nothing. "seq" means trajectory, however many rows it has. What has no loss tokens, a trajectory, a group or a turn, is
in no denominator.
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
        return _of_trajectories(1.0 / (_present(counts) * np.maximum(counts, 1)))


@dataclass(frozen=True, slots=True)
class SeqMeanTokenSum(Aggregate):
    """w = 1 / S: the policy gradient of the mean return."""

    averages_tokens: ClassVar[bool] = False

    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        return _of_trajectories(np.full(len(counts), 1.0 / _present(counts)))


@dataclass(frozen=True, slots=True)
class SeqSumConst(Aggregate):
    """w = 1 / (S length): Dr.GRPO's constant (2503.20783), as in TRL and verl 0.9.1. It scales the step size only."""

    length: int
    averages_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        at_least("aggregate 'seq_sum_const'", 1, length=self.length)

    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        return _of_trajectories(np.full(len(counts), 1.0 / (_present(counts) * self.length)))


@dataclass(frozen=True, slots=True)
class PromptMean(Aggregate):
    """w = 1 / (P n_g), P the groups that have loss tokens and n_g those of the group: each task counts the same
    (ScaleRL, 2510.13786)."""

    averages_tokens: ClassVar[bool] = False

    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        of_group = np.bincount(batch.group_ids, counts)
        return _of_trajectories(1.0 / (_present(of_group) * np.maximum(of_group, 1))[batch.group_ids])


@dataclass(frozen=True, slots=True)
class TurnMean(Aggregate):
    """w = 1 / (K n_k), K the turns that have loss tokens and n_k those of the turn: each turn counts the same, however
    long it is."""

    averages_tokens: ClassVar[bool] = False

    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        of_turn = np.where(counts[batch.turn_trajectory] > 0, turn_loss_counts(batch), 0)
        return Leveled(Level.TURN, 1.0 / (_present(of_turn) * np.maximum(of_turn, 1)))


def turn_loss_counts(batch: Batch) -> IntArray:
    """[K] tokens of each turn that are trained on."""
    if batch.loss_mask is batch.action_mask:
        return batch.turn_lengths
    before = np.concatenate([[0], np.cumsum(batch.loss_mask)])
    out: IntArray = before[batch.turn_starts + batch.turn_lengths] - before[batch.turn_starts]
    return out


def _of_trajectories(weights: Float64Array) -> Leveled:
    return Leveled(Level.TRAJECTORY, weights)


def _present(counts: IntArray | Float64Array) -> int:
    return max(int(np.count_nonzero(counts)), 1)


AGGREGATES: Mapping[str, type] = {
    "token_mean": TokenMean,
    "seq_mean_token_mean": SeqMeanTokenMean,
    "seq_mean_token_sum": SeqMeanTokenSum,
    "seq_sum_const": SeqSumConst,
    "prompt_mean": PromptMean,
    "turn_mean": TurnMean,
}
