"""Which rows are computed together.

What comes in: row lengths and a token budget. What goes out: lists of row indices. Rows are sorted by length, so that
little padding is computed. Pure functions; knows no torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agentrl.trajectory import IntArray


def micro_batches(lengths: IntArray, budget: int) -> list[IntArray]:
    """Split rows into micro-batches of at most `budget` padded tokens (one row alone may exceed it).

    Args:
        lengths: [R] tokens of each row.
        budget: rows x longest row of a micro-batch.

    Returns:
        Row indices, longest rows first, every row exactly once.
    """
    order = np.argsort(-lengths, kind="stable")
    out: list[IntArray] = []
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        count = max(1, budget // max(1, longest))
        out.append(order[start : start + count])
        start += count
    return out


def pad_rows(token_ids: IntArray, row_starts: IntArray, rows: IntArray) -> npt.NDArray[np.int64]:
    """Gather rows of a flat stream into a right-padded matrix.

    Args:
        token_ids: [N] all rows, one after another.
        row_starts: [R + 1] where each row begins.
        rows: [B] which rows.

    Returns:
        [B, L] token ids, 0 beyond a row's end. Causal attention keeps the padding out of every real position.
    """
    lengths = row_starts[rows + 1] - row_starts[rows]
    out = np.zeros((len(rows), int(lengths.max())), np.int64)
    for i, row in enumerate(rows):
        out[i, : lengths[i]] = token_ids[row_starts[row] : row_starts[row + 1]]
    return out
