"""Statistics over the trajectories of a group, each counted once.

What comes in: [T] a number for each trajectory. What goes out: [T] its group's statistic. Knows no turns and no
tokens.
"""

from __future__ import annotations

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.reward_side.levels import Level, Leveled, sums_by

EQUAL = 1e-9  # numbers closer than this are equal: sums of the same rewards in another order


def group_sizes(batch: Batch) -> Float64Array:
    """[T] number of trajectories in the group of each."""
    return np.bincount(batch.group_ids)[batch.group_ids].astype(np.float64)


def has_peers(batch: Batch) -> Leveled:
    """1 where a trajectory has others in its group, 0 where it is alone."""
    return Leveled(Level.TRAJECTORY, (group_sizes(batch) > 1).astype(np.float64))


def group_sums(batch: Batch, x: Float64Array) -> Float64Array:
    """[T] sum of x over the group of each trajectory."""
    return sums_by(batch.group_ids, x, 0)[batch.group_ids]


def group_means(batch: Batch, x: Float64Array) -> Float64Array:
    """[T] mean of x over the group of each trajectory."""
    return group_sums(batch, x) / group_sizes(batch)


def others_means(batch: Batch, x: Float64Array) -> Float64Array:
    """[T] mean of x over the others in the group of each trajectory; 0 for one that is alone."""
    out: Float64Array = (group_sums(batch, x) - x) / np.maximum(group_sizes(batch) - 1, 1)
    return out


def group_stds(batch: Batch, x: Float64Array) -> Float64Array:
    """[T] standard deviation (n - 1) of x over the group of each trajectory; 0 for a group of one."""
    squares = group_sums(batch, (x - group_means(batch, x)) ** 2)
    variances: Float64Array = squares / np.maximum(group_sizes(batch) - 1, 1)
    return np.sqrt(variances)


def group_maxima(batch: Batch, x: Float64Array) -> Float64Array:
    """[T] largest x in the group of each trajectory."""
    largest = np.full(int(batch.group_ids.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(largest, batch.group_ids, x)
    out: Float64Array = largest[batch.group_ids]
    return out


def all_equal(batch: Batch, x: Float64Array) -> Float64Array:
    """[T] 1 where x is the same for the whole group, as it is in a group of one; 0 elsewhere."""
    ranges = group_maxima(batch, x) + group_maxima(batch, -x)
    return (ranges <= EQUAL).astype(np.float64)
