"""Discounted sums from each element to the end of its trajectory.

What comes in: values of all trajectories laid end to end. What goes out: their returns. Knows not whether the elements
are tokens or turns.
"""

from __future__ import annotations

import numpy as np

from agentrl.objective.batch import Float64Array
from agentrl.trajectory import IntArray


def discounted_suffix_sums(values: Float64Array, lengths: IntArray, discount: float) -> Float64Array:
    """G[t] = values[t] + discount * G[t + 1] inside each run of `lengths`, by doubling: log2(longest) passes.

    After the pass with step s, G[t] holds the first 2 s terms of its sum. Nothing is divided by a power of the discount,
    so no length can overflow it.

    Args:
        values: [n]
        lengths: [runs] summing to n
        discount: in [0, 1]
    """
    out = values.copy()
    ends = np.repeat(np.cumsum(lengths), lengths)
    left = ends - np.arange(len(values))  # elements from here to the run's end, itself included
    step, longest = 1, int(lengths.max(initial=0))
    while step < longest:
        reach = (left[:-step] > step) * discount**step
        out[:-step] += reach * out[step:]
        step *= 2
    return out
