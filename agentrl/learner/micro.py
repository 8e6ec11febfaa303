"""A batch cut into micro-batches on a device.

What comes in: a batch, which of its trajectories and which of their tokens are asked for, a token budget. What goes
out: padded rows, and where the asked tokens stand in them and in the batch. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agentrl.learner.packing import micro_batches, pad_rows
from agentrl.objective.batch import Batch, Float64Array
from agentrl.trajectory import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Micro:
    """One micro-batch on the device."""

    input_ids: Tensor  # [B, L]
    rows: Tensor  # [A] row of each asked token
    columns: Tensor  # [A]
    flat: IntArray  # [A] where each asked token stands in the batch's flat stream
    row_tokens: int  # of input_ids, without padding

    def pick(self, array: FloatArray | Float64Array) -> Tensor:
        """[N] to [A], float32."""
        return torch.from_numpy(array[self.flat].astype(np.float32)).to(self.input_ids.device)

    def pick_ids(self, array: IntArray) -> Tensor:
        """[N] to [A]."""
        return torch.from_numpy(array[self.flat]).to(self.input_ids.device)

    def pick_dense(self, array: IntArray) -> Tensor:
        """[N] to [A], the same partition with ids 0, 1, 2, ..."""
        ids = np.unique(array[self.flat], return_inverse=True)[1].astype(np.int64)
        return torch.from_numpy(ids).to(self.input_ids.device)


def cut(
    batch: Batch, trajectories: IntArray, mask: BoolArray, *, budget: int, whole: bool, device: torch.device
) -> Iterator[Micro]:
    """Micro-batches of the trajectories' rows that hold a token of the mask, longest rows first.

    Args:
        trajectories: indices.
        mask: [N] the tokens asked for.
        budget: padded tokens of a micro-batch.
        whole: the rows of a trajectory stay together, whatever the budget.
    """
    chosen = np.zeros(batch.n_trajectories, np.bool_)
    chosen[trajectories] = True
    asked = np.diff(np.concatenate([[0], np.cumsum(mask)])[batch.row_starts])  # [R] tokens of each row
    rows = np.flatnonzero(chosen[batch.row_trajectory] & (asked > 0))
    lengths = np.diff(batch.row_starts)[rows]
    for members in micro_batches(lengths, budget, batch.row_trajectory[rows] if whole else None):
        picked = rows[members]
        starts, ends = batch.row_starts[picked], batch.row_starts[picked + 1]
        where = [np.flatnonzero(mask[start:end]) for start, end in zip(starts, ends, strict=True)]
        columns = np.concatenate(where)
        row_of = np.repeat(np.arange(len(picked)), [len(w) for w in where])
        yield Micro(
            input_ids=torch.from_numpy(pad_rows(batch.token_ids, batch.row_starts, picked)).to(device),
            rows=torch.from_numpy(row_of).to(device),
            columns=torch.from_numpy(columns).to(device),
            flat=starts[row_of] + columns,
            row_tokens=int(lengths[members].sum()),
        )
