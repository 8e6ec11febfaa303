"""Which rows are computed together.

What comes in: row lengths and a token budget. What goes out: lists of row indices. Rows are sorted by length, so that
little padding is computed. Pure functions; knows no torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agentrl.trajectory import IntArray


def micro_batches(lengths: IntArray, budget: int, owners: IntArray | None = None) -> list[IntArray]:
    """Split rows into micro-batches of at most `budget` padded tokens (one row, or owner, alone may exceed it).

    Args:
        lengths: [R] tokens of each row.
        budget: rows x longest row of a micro-batch.
        owners: [R] rows of one owner stay together; None: each row is its own.

    Returns:
        Row indices, longest first, every row exactly once.
    """
    owner = np.arange(len(lengths)) if owners is None else np.unique(owners, return_inverse=True)[1]
    counts = np.bincount(owner)
    longest = np.zeros(len(counts), np.int64)
    np.maximum.at(longest, owner, lengths)
    rows_of = np.split(np.argsort(owner, kind="stable"), np.cumsum(counts)[:-1])
    out: list[list[IntArray]] = []
    rows = widest = 0
    for unit in np.argsort(-longest, kind="stable").tolist():
        if not out or (rows + counts[unit]) * widest > budget:
            out.append([])
            rows, widest = 0, int(longest[unit])
        out[-1].append(rows_of[unit])
        rows += int(counts[unit])
    return [np.concatenate(units) for units in out]


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
