"""Which turns are compared with one another, and their statistics.

What comes in: a batch and a number for each turn. What goes out: [K] the statistic of each turn's cell (the turns at
its index, or in its state, in its group), and where there is one. A turn counts once, however many tokens it has.
Knows no reward and no formula.
"""

from __future__ import annotations

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.reward_side.groups import EQUAL
from agentrl.objective.reward_side.levels import Level, Leveled, divide, multiply, refine, sums_by
from agentrl.trajectory import BoolArray, IntArray


def turn_numbers(batch: Batch, x: Leveled) -> tuple[Float64Array, BoolArray]:
    """[K] each turn's number, that of its first token where tokens differ; and which turns have one.

    Where tokens differ, a turn without tokens has none.
    """
    if x.level is not Level.ACTION:
        return refine(batch, x, Level.TURN), np.ones(len(batch.turn_lengths), np.bool_)
    has = batch.turn_lengths > 0
    first = np.cumsum(batch.turn_lengths) - batch.turn_lengths
    out = np.zeros(len(has))
    out[has] = x.values[first[has]]
    return out, has


def index_cells(batch: Batch) -> IntArray:
    """[K] ids equal where turns of one group have the same index in their trajectories."""
    return batch.turn_groups * (int(batch.turn_index.max(initial=0)) + 1) + batch.turn_index


def cell_means(cells: IntArray, x: Float64Array, counted: BoolArray) -> tuple[Float64Array, BoolArray]:
    """[K] mean of x over the counted turns of each cell, and where there are any."""
    n = sums_by(cells, counted.astype(np.float64), 0)[cells]
    return sums_by(cells, x * counted, 0)[cells] / np.maximum(n, 1), n > 0


def cell_means_of_others(cells: IntArray, x: Float64Array, counted: BoolArray) -> tuple[Float64Array, BoolArray]:
    """[K] mean of x over the counted turns of each cell without the turn itself, and where there are any."""
    n = sums_by(cells, counted.astype(np.float64), 0)[cells] - counted
    return (sums_by(cells, x * counted, 0)[cells] - x * counted) / np.maximum(n, 1), n > 0


def cell_stds(cells: IntArray, x: Float64Array, counted: BoolArray) -> Float64Array:
    """[K] standard deviation (n - 1) of x over the counted turns of each cell; 0 where fewer than two are."""
    n = sums_by(cells, counted.astype(np.float64), 0)[cells]
    means, _ = cell_means(cells, x, counted)
    variances: Float64Array = sums_by(cells, (x - means) ** 2 * counted, 0)[cells] / np.maximum(n - 1, 1)
    return np.sqrt(variances)


def first_visits(batch: Batch, cells: IntArray, counted: BoolArray) -> tuple[BoolArray, IntArray]:
    """[K] whether a turn is its trajectory's first counted one in its cell; and the index of the turn that is."""
    width = int(cells.max(initial=0)) + 1
    at = np.flatnonzero(counted)
    _, first, pair = np.unique(batch.turn_trajectory[at] * width + cells[at], return_index=True, return_inverse=True)
    is_first = np.zeros(len(cells), np.bool_)
    is_first[at[first]] = True
    where = np.arange(len(cells))
    where[at] = at[first[pair]]
    return is_first, where


def or_own(batch: Batch, baseline: Leveled, known: BoolArray, credit: Leveled) -> Leveled:
    """The baseline where it is known; elsewhere the credit itself, so that the advantage is 0.

    Args:
        known: at the baseline's level
    """
    level = max(baseline.level, credit.level)
    use = refine(batch, Leveled(baseline.level, known.astype(np.float64)), level) > 0
    return Leveled(level, np.where(use, refine(batch, baseline, level), refine(batch, credit, level)))


def divide_by_spread(batch: Batch, x: Leveled, spread: Leveled, eps: float) -> Leveled:
    """x / (spread + eps), and 0 where the spread is 0: there is nobody to differ from."""
    some = Leveled(spread.level, (spread.values > EQUAL).astype(np.float64))
    return multiply(batch, divide(batch, x, Leveled(spread.level, spread.values + eps)), some)
