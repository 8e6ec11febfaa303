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


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 6)), min_size=1, max_size=40), st.integers(1, 200))
def test_rows_of_one_owner_stay_together(rows: list[tuple[int, int]], budget: int) -> None:
    lengths, owners = np.array(rows).T
    cut = micro_batches(lengths, budget, owners)
    assert sorted(np.concatenate(cut).tolist()) == list(range(len(rows)))
    homes = [set(owners[members].tolist()) for members in cut]
    assert sum(map(len, homes)) == len(set(owners.tolist()))
    for members, home in zip(cut, homes, strict=True):
        padded = len(members) * int(lengths[members].max())
        assert padded <= budget or len(home) == 1


def test_an_owners_rows_are_counted_at_the_longest_ones_width() -> None:
    lengths, owners = np.array([2, 9, 2, 5, 5]), np.array([0, 1, 1, 2, 0])
    assert [m.tolist() for m in micro_batches(lengths, 27, owners)] == [[1, 2], [0, 4, 3]]
    assert [m.tolist() for m in micro_batches(lengths, 45, owners)] == [[1, 2, 0, 4, 3]]


def test_like_lengths_stand_together() -> None:
    assert [m.tolist() for m in micro_batches(np.array([3, 9, 3, 8]), 18)] == [[1, 3], [0, 2]]


def test_no_rows() -> None:
    assert micro_batches(np.array([], np.int64), 10) == []


def test_pad_rows() -> None:
    token_ids, starts = np.array([5, 6, 7, 8, 9, 4]), np.array([0, 3, 5, 6])
    assert pad_rows(token_ids, starts, np.array([1, 0])).tolist() == [[8, 9, 0], [5, 6, 7]]
