"""Discounted sums from each element to the end of its trajectory.

What comes in: values of all trajectories laid end to end. What goes out: their returns. Knows not whether the
elements are tokens or turns.
"""

from __future__ import annotations

import numpy as np

from agentrl.objective.batch import Float64Array
from agentrl.trajectory import IntArray

BLOCK = 1 << 14  # elements scanned together: small enough for all passes to stay in cache


def discounted_suffix_sums(values: Float64Array, lengths: IntArray, discount: float) -> Float64Array:
    """G[t] = values[t] + discount * G[t + 1] inside each run of `lengths`, by doubling: log2(longest) passes.

    After the pass with step s, G[t] holds the first 2 s terms of its sum. Nothing is divided by a power of the
    discount, so no length can overflow it.

    Args:
        values: [n]
        lengths: [runs] summing to n
        discount: in [0, 1]
    """
    out = values.copy()
    ends = np.cumsum(lengths)
    run = 0
    while run < len(lengths):
        start = ends[run] - lengths[run]
        after = max(int(np.searchsorted(ends, start + BLOCK, side="right")), run + 1)
        _scan_in_place(out[start : ends[after - 1]], lengths[run:after], discount)
        run = after
    return out


def _scan_in_place(out: Float64Array, lengths: IntArray, discount: float) -> None:
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(out))  # elements from here to the run's end
    step, longest = 1, int(lengths.max(initial=0))
    while step < longest:
        out[:-step] += np.where(left[:-step] > step, out[step:] * discount**step, 0.0)
        step *= 2
