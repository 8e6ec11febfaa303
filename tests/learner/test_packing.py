"""Micro-batches: every row once, within the budget, and padding never read."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agentrl.learner.packing import micro_batches, pad_rows


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
def test_every_row_once_and_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = micro_batches(np.array(lengths), budget)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
    for members in rows:
        padded = len(members) * max(lengths[i] for i in members)
        assert padded <= budget or len(members) == 1


def test_like_lengths_stand_together() -> None:
    assert [m.tolist() for m in micro_batches(np.array([3, 9, 3, 8]), 18)] == [[1, 3], [0, 2]]


def test_no_rows() -> None:
    assert micro_batches(np.array([], np.int64), 10) == []


def test_pad_rows() -> None:
    token_ids, starts = np.array([5, 6, 7, 8, 9, 4]), np.array([0, 3, 5, 6])
    assert pad_rows(token_ids, starts, np.array([1, 0])).tolist() == [[8, 9, 0], [5, 6, 7]]
