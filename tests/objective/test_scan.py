"""Discounted sums over runs laid end to end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.objective.reward_side.scan import BLOCK, discounted_suffix_sums
from tests.objective.play import steady


def naive(values: np.ndarray, lengths: list[int], discount: float) -> list[float]:
    out: list[float] = []
    ends = np.cumsum(lengths)
    for end, length in zip(ends, lengths, strict=True):
        run: list[float] = []
        for value in reversed(values[end - length : end].tolist()):
            run.append(value + discount * (run[-1] if run else 0.0))
        out += reversed(run)
    return out


@steady
@given(st.lists(st.integers(0, 20), max_size=8), st.sampled_from([0.0, 0.3, 0.99, 1.0]))
def test_agrees_with_the_recurrence(lengths, discount):
    values = np.random.default_rng(sum(lengths)).normal(size=sum(lengths))
    before = values.copy()
    got = discounted_suffix_sums(values, np.array(lengths, np.int64), discount)
    assert got.tolist() == pytest.approx(naive(values, lengths, discount))
    assert np.array_equal(values, before)


@pytest.mark.parametrize("lengths", [[BLOCK, 3, BLOCK + 5, 0, 2 * BLOCK + 1, 1], [BLOCK - 1, 1, 1], [7] * (BLOCK // 3)])
@pytest.mark.parametrize("discount", [1.0, 0.97])
def test_blocks_do_not_show(lengths, discount):
    values = np.random.default_rng(0).normal(size=sum(lengths))
    got = discounted_suffix_sums(values, np.array(lengths, np.int64), discount)
    assert got == pytest.approx(np.array(naive(values, lengths, discount)))


def test_a_long_run_neither_overflows_nor_vanishes():
    got = discounted_suffix_sums(np.ones(100_000), np.array([100_000]), 0.5)
    assert got[0] == pytest.approx(2)
