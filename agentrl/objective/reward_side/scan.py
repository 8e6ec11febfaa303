"""Discounted sums from each element to the end of its trajectory.

What comes in: values of all trajectories laid end to end. What goes out: their returns. Knows not whether the
elements are tokens or turns.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from agentrl.objective.batch import Float64Array, spread_runs
from agentrl.trajectory import IntArray


def discounted_suffix_sums(values: Float64Array, lengths: IntArray, factor: float | Float64Array) -> Float64Array:
    """G[t] = values[t] + factor[t] G[t + 1] inside each run of `lengths`; nothing follows a run's last element.

    The recurrence itself, one step for all runs at a time, so it is as exact as a loop: nothing is divided by a power
    of the factor and nothing is subtracted. A run much longer than the square root of n is cut into pieces that are
    summed side by side, so the number of steps stays near that, however the lengths are distributed. Zeros are passed
    over where they change nothing.

    Args:
        values: [n]
        lengths: [runs] summing to n
        factor: one for all, or [n]; a run's last one is not read
    """
    if isinstance(factor, float) and factor == 1.0 and 8 * np.count_nonzero(values) < len(values):
        return _of_few(values, lengths)
    piece = isqrt(len(values)) + 1
    if lengths.max(initial=0) > 2 * piece:
        return _in_pieces(values, lengths, factor, piece)
    return _side_by_side(values, lengths, factor)


def _of_few(values: Float64Array, lengths: IntArray) -> Float64Array:
    """Undiscounted, where most values are 0: each sum stands from the value before (or the run's start) to its own."""
    at = np.flatnonzero(values)
    ends = np.cumsum(lengths)
    counts = np.diff(np.searchsorted(at, ends), prepend=0)  # [runs] values that are not 0
    run_starts = np.repeat(ends - lengths, counts)
    starts = np.maximum(run_starts, np.append(0, at[:-1] + 1)[: len(at)])
    sums = discounted_suffix_sums(values[at], counts, 1.0)
    return spread_runs(sums, starts, at + 1 - starts, len(values))


def _side_by_side(values: Float64Array, lengths: IntArray, factor: float | Float64Array) -> Float64Array:
    order = np.argsort(-lengths, kind="stable")  # longest first: those that are still running are always a prefix
    lengths, last = lengths[order], np.cumsum(lengths)[order] - 1
    steps = int(lengths[0]) if len(lengths) else 0
    running = np.searchsorted(-lengths, -np.arange(steps), side="left")
    padded = np.empty(steps + len(values))  # room to the left, so that a step back is a shifted view
    padded[steps:] = values
    carried, here = np.zeros(len(lengths)), np.empty(len(lengths))
    for step, count in enumerate(running.tolist()):
        view, at, total = padded[steps - step :], last[:count], carried[:count]
        total *= factor.take(at - step, mode="clip") if isinstance(factor, np.ndarray) else factor
        total += view.take(at, out=here[:count], mode="clip")
        view[at] = total
    return padded[steps:]


def _in_pieces(values: Float64Array, lengths: IntArray, factor: float | Float64Array, piece: int) -> Float64Array:
    pieces = -(-lengths // piece)  # [runs]
    ends = np.cumsum(pieces)[pieces > 0] - 1
    piece_lengths = np.full(int(pieces.sum()), piece, np.int64)
    piece_lengths[ends] = (lengths - (pieces - 1) * piece)[pieces > 0]
    last = np.cumsum(piece_lengths) - 1
    first = last - piece_lengths + 1
    unit = np.zeros(len(values))
    unit[last] = factor[last] if isinstance(factor, np.ndarray) else factor
    inside = _side_by_side(values, piece_lengths, factor)
    reach = _side_by_side(unit, piece_lengths, factor)  # the product of the factors from here to the piece's end
    following = np.append(discounted_suffix_sums(inside[first], pieces, reach[first])[1:], 0.0)
    following[ends] = 0.0
    out: Float64Array = inside + reach * np.repeat(following, piece_lengths)
    return out
