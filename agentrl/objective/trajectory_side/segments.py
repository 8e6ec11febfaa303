"""Sums and means over the tokens of a trajectory or a turn, inside one micro-batch.

What comes in: ids, and [A] a number for each token. What goes out: [A] each token's own trajectory's (or turn's)
statistic, with gradient. Knows no masks: tokens that are not trained on are gone by now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.objective.trajectory_side.inputs import LossInputs

if TYPE_CHECKING:
    from torch import Tensor


def sum_over(ids: Tensor, x: Tensor) -> Tensor:
    """[A] sum of x over the tokens with the same id."""
    count = int(ids.max()) + 1 if len(ids) else 0
    return x.new_zeros(count).index_add(0, ids, x)[ids]


def mean_over(ids: Tensor, x: Tensor) -> Tensor:
    """[A] mean of x over the tokens with the same id."""
    return sum_over(ids, x) / sum_over(ids, x.new_ones(x.shape))


def turn_keys(inputs: LossInputs) -> Tensor:
    """[A] int64 ids of (trajectory, turn), dense."""
    width = int(inputs.turn_ids.max()) + 1 if len(inputs.turn_ids) else 1
    return (inputs.sequence_ids * width + inputs.turn_ids).unique(return_inverse=True)[1]  # type: ignore[no-any-return,no-untyped-call]
