"""Numbers that belong to trajectories, to turns or to action tokens, and the way down from one to the next.

What comes in: arrays of one level. What goes out: arrays of a finer level. Most estimators give all tokens of a
trajectory or a turn the same number; keeping it at its own level until the end keeps the reward side independent of
token counts. Knows no formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from agentrl.objective.batch import Batch, Float64Array, spread_runs
from agentrl.trajectory import IntArray


class Level(IntEnum):
    """From coarse to fine."""

    TRAJECTORY = 0  # [T]
    TURN = 1  # [K]
    ACTION = 2  # [A] action tokens only, in batch order


@dataclass(frozen=True, slots=True)
class Leveled:
    """One number for each trajectory, turn or action token."""

    level: Level
    values: Float64Array  # [T], [K] or [A]


def refine(batch: Batch, x: Leveled, level: Level) -> Float64Array:
    """The same numbers at a finer (or the same) level, repeated."""
    values = x.values
    if x.level is Level.TRAJECTORY and level is Level.ACTION:
        return np.repeat(values, batch.action_counts)
    if x.level is Level.TRAJECTORY and level is Level.TURN:
        return values[batch.turn_trajectory]
    if x.level is Level.TURN and level is Level.ACTION:
        return np.repeat(values, batch.turn_lengths)
    if x.level is not level:
        raise ValueError(f"cannot go up from {x.level.name} to {level.name}: that would be a statistic")
    return values


def to_tokens(batch: Batch, x: Leveled) -> Float64Array:
    """[N] the numbers at every action token, 0 at the others."""
    values = x.values
    if x.level is Level.ACTION:
        out = np.zeros(batch.n_tokens)
        out[batch.action_mask] = values
        return out
    if x.level is Level.TRAJECTORY:
        values = values[batch.turn_trajectory]
    return spread_runs(values, batch.turn_starts, batch.turn_lengths, batch.n_tokens)


def add(batch: Batch, a: Leveled, b: Leveled) -> Leveled:
    """a + b, at the finer of their levels."""
    level = max(a.level, b.level)
    return Leveled(level, refine(batch, a, level) + refine(batch, b, level))


def subtract(batch: Batch, a: Leveled, b: Leveled) -> Leveled:
    """a - b, at the finer of their levels."""
    level = max(a.level, b.level)
    return Leveled(level, refine(batch, a, level) - refine(batch, b, level))


def multiply(batch: Batch, a: Leveled, b: Leveled) -> Leveled:
    """a b, at the finer of their levels."""
    level = max(a.level, b.level)
    return Leveled(level, refine(batch, a, level) * refine(batch, b, level))


def divide(batch: Batch, a: Leveled, b: Leveled) -> Leveled:
    """a / b, at the finer of their levels."""
    level = max(a.level, b.level)
    return Leveled(level, refine(batch, a, level) / refine(batch, b, level))


def sum_by_trajectory(batch: Batch, x: Leveled) -> Float64Array:
    """[T] sum of each trajectory's numbers."""
    if x.level is Level.TRAJECTORY:
        return x.values
    if x.level is Level.TURN:
        return sums_by(batch.turn_trajectory, x.values, batch.n_trajectories)
    return sums_of_runs(batch.action_counts, x.values)


def sums_by(owner: IntArray, values: Float64Array, size: int) -> Float64Array:
    """[size] sum of the values of each owner."""
    return np.bincount(owner, values, minlength=size).astype(np.float64, copy=False)


def sums_of_runs(lengths: IntArray, values: Float64Array) -> Float64Array:
    """[runs] sum of the values of each run; 0 for an empty one."""
    out = np.zeros(len(lengths))
    some = lengths > 0
    if some.any():
        out[some] = np.add.reduceat(values, (np.cumsum(lengths) - lengths)[some])
    return out
