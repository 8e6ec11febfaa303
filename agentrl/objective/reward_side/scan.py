"""Discounted sums from each element to the end of its trajectory.

What comes in: values of all trajectories laid end to end. What goes out: their returns. Knows not whether the
elements are tokens or turns.
"""

from __future__ import annotations

from math import isqrt
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from agentrl.objective.batch import Float64Array, spread_runs
from agentrl.trajectory import BoolArray, IntArray

_Number = TypeVar("_Number", bound=np.generic)
BLOCK = 16  # elements that one row of a matrix product sums
AT_ONCE = 1 << 17  # elements that stay in the processor's cache
FEW = 1 / 8  # share of values that are not 0, below which the zeros are passed over


def discounted_suffix_sums(values: Float64Array, lengths: IntArray, factor: float | Float64Array) -> Float64Array:
    """G[t] = values[t] + factor[t] G[t + 1] inside each run of `lengths`; nothing follows a run's last element.

    Nothing is divided by a power of the factor and nothing is subtracted, so no length overflows it, and nothing of one
    run is seen in another. However the lengths are distributed, the passes in Python are about sqrt(n) at most.

    Args:
        values: [n]
        lengths: [runs] summing to n
        factor: in [0, 1]; one for all, or [n], of which a run's last one changes nothing
    """
    if isinstance(factor, np.ndarray):
        return _in_pieces(values, lengths, factor)
    if factor == 1.0 and np.count_nonzero(values) < FEW * len(values):
        return _of_few(values, lengths)
    if len(values) > 4 * BLOCK * len(lengths):
        return _in_blocks(values, lengths, factor)
    return _side_by_side(values, lengths, factor)


def next_in_run(x: npt.NDArray[_Number], lengths: IntArray) -> npt.NDArray[_Number]:
    """[n] the element after each in its run; 0 after the last."""
    out = np.empty_like(x)
    out[:-1] = x[1:]
    out[(np.cumsum(lengths) - 1)[lengths > 0]] = 0
    return out


def _of_few(values: Float64Array, lengths: IntArray) -> Float64Array:
    """Undiscounted, where most values are 0: each sum stands from the value before (or the run's start) to its own."""
    at = np.flatnonzero(values)
    ends = np.cumsum(lengths)
    counts = np.diff(np.searchsorted(at, ends), prepend=0)  # [runs] values that are not 0
    run_starts = np.repeat(ends - lengths, counts)
    starts = np.maximum(run_starts, np.append(0, at[:-1] + 1)[: len(at)])
    sums = discounted_suffix_sums(values[at], counts, 1.0)
    return spread_runs(sums, starts, at + 1 - starts, len(values))


def _in_blocks(values: Float64Array, lengths: IntArray, factor: float) -> Float64Array:
    """By matrix products: as many runs at a time as stay in the processor's cache."""
    out = np.empty(len(values))
    apart = np.subtract.outer(np.arange(BLOCK), np.arange(BLOCK))
    weights = np.where(apart >= 0, factor ** np.maximum(apart, 0), 0.0)  # [j, t] of value j in the sum at t
    ends = np.cumsum(lengths)
    start = done = 0
    while done < len(lengths):
        upto = max(int(np.searchsorted(ends, start + AT_ONCE, side="right")), done + 1)
        end = int(ends[upto - 1])
        out[start:end] = _product(values[start:end], lengths[done:upto], factor, weights)
        start, done = end, upto
    return out


def _product(values: Float64Array, lengths: IntArray, factor: float, weights: Float64Array) -> Float64Array:
    """Runs filled up to whole blocks; what comes to a block from those after it is put onto its last element, and one
    product with the factor's powers sums all blocks."""
    counts = -(-lengths // BLOCK)  # [runs] blocks
    inside = _filled(lengths, counts * BLOCK)
    if inside is None:
        x = values.copy()
    else:
        x = np.zeros(len(inside))
        x[inside] = values
    x = x.reshape(-1, BLOCK)
    sums = discounted_suffix_sums(x @ weights[:, 0], counts, factor**BLOCK)
    x[:, -1] += factor * next_in_run(sums, counts)
    out: Float64Array = (x @ weights).ravel()
    return out if inside is None else out[inside]


def _filled(lengths: IntArray, room: IntArray) -> BoolArray | None:
    """Where the elements stand when run i is given room[i]; None: runs need no filling."""
    if np.array_equal(lengths, room):
        return None
    return np.repeat(np.tile([True, False], len(lengths)), np.column_stack([lengths, room - lengths]).ravel())


def _in_pieces(values: Float64Array, lengths: IntArray, factor: Float64Array) -> Float64Array:
    """Runs much longer than sqrt(n) are cut into pieces, which are summed side by side, and then their sums."""
    piece = isqrt(len(values)) + 1
    if lengths.max(initial=0) <= 2 * piece:
        return _side_by_side(values, lengths, factor)
    counts = -(-lengths // piece)  # [runs] pieces
    cut = np.full(int(counts.sum()), piece)
    cut[(np.cumsum(counts) - 1)[counts > 0]] = (lengths - (counts - 1) * piece)[counts > 0]
    last = np.cumsum(cut) - 1
    first = last - cut + 1
    unit = np.zeros(len(values))
    unit[last] = factor[last]
    inside = _side_by_side(values, cut, factor)
    reach = _side_by_side(unit, cut, factor)  # the product of the factors from here to the piece's end
    sums = discounted_suffix_sums(inside[first], counts, reach[first])
    out: Float64Array = inside + reach * np.repeat(next_in_run(sums, counts), cut)
    return out


def _side_by_side(values: Float64Array, lengths: IntArray, factor: float | Float64Array) -> Float64Array:
    """The recurrence itself, one step for all runs at a time, from their ends."""
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
