"""Slot `aggregate`: how tokens' losses become one number, as weights: loss = sum_t w_t l_t.

What comes in: [T] the loss tokens of each trajectory that takes part in an update. What goes out: [T] the weight of
each of its tokens. The weights are those of the whole update, so cutting it into micro-batches changes nothing. "seq"
means trajectory, however many rows it has. A trajectory without loss tokens is in no denominator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from agentrl.objective.batch import Float64Array
from agentrl.objective.component import at_least
from agentrl.trajectory import IntArray


class Aggregate(Protocol):
    averages_tokens: ClassVar[bool]  # a trajectory's weights sum to the same, whatever its length

    def __call__(self, counts: IntArray) -> Float64Array: ...


@dataclass(frozen=True, slots=True)
class TokenMean:
    """w = 1 / (all loss tokens)."""

    averages_tokens: ClassVar[bool] = False

    def __call__(self, counts: IntArray) -> Float64Array:
        return np.full(len(counts), 1.0 / max(counts.sum(), 1))


@dataclass(frozen=True, slots=True)
class SeqMeanTokenMean:
    """w_i = 1 / (S len_i), S the trajectories that have loss tokens."""

    averages_tokens: ClassVar[bool] = True

    def __call__(self, counts: IntArray) -> Float64Array:
        return 1.0 / (_sequences(counts) * np.maximum(counts, 1))


@dataclass(frozen=True, slots=True)
class SeqMeanTokenSum:
    """w = 1 / S: the policy gradient of the mean return."""

    averages_tokens: ClassVar[bool] = False

    def __call__(self, counts: IntArray) -> Float64Array:
        return np.full(len(counts), 1.0 / _sequences(counts))


@dataclass(frozen=True, slots=True)
class SeqSumConst:
    """w = 1 / (S length): Dr.GRPO's constant (2503.20783), as in TRL and verl 0.9.1. It scales the step size only."""

    length: int
    averages_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        at_least("aggregate 'seq_sum_const'", 1, length=self.length)

    def __call__(self, counts: IntArray) -> Float64Array:
        return np.full(len(counts), 1.0 / (_sequences(counts) * self.length))


def _sequences(counts: IntArray) -> int:
    return max(int(np.count_nonzero(counts)), 1)


AGGREGATES: Mapping[str, type] = {
    "token_mean": TokenMean,
    "seq_mean_token_mean": SeqMeanTokenMean,
    "seq_mean_token_sum": SeqMeanTokenSum,
    "seq_sum_const": SeqSumConst,
}
