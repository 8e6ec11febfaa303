"""Discounted sums over runs laid end to end."""

from __future__ import annotations

from math import isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.objective.reward_side.scan import discounted_suffix_sums
from tests.objective.play import steady

FACTORS = [0.0, 0.3, 0.99, 1.0]


def naive(values: np.ndarray, lengths: list[int], factors: np.ndarray) -> list[float]:
    out: list[float] = []
    ends = np.cumsum(lengths)
    for end, length in zip(ends, lengths, strict=True):
        run: list[float] = []
        for value, factor in zip(values[end - length : end][::-1], factors[end - length : end][::-1], strict=True):
            run.append(value + factor * (run[-1] if run else 0.0))
        out += reversed(run)
    return out


@steady
@given(st.lists(st.integers(0, 20), max_size=8), st.sampled_from(FACTORS), st.sampled_from([1.0, 0.05]))
def test_agrees_with_the_recurrence(lengths, factor, share):
    rng = np.random.default_rng(sum(lengths))
    values = rng.normal(size=sum(lengths)) * (rng.random(sum(lengths)) < share)
    before = values.copy()
    got = discounted_suffix_sums(values, np.array(lengths, np.int64), factor)
    assert got.tolist() == pytest.approx(naive(values, lengths, np.full(len(values), factor)))
    assert np.array_equal(values, before)


@steady
@given(st.lists(st.integers(0, 60), max_size=8), st.integers(0, 2**32 - 1))
def test_agrees_with_the_recurrence_where_factors_differ(lengths, seed):
    rng = np.random.default_rng(seed)
    values, factors = rng.normal(size=(2, sum(lengths)))
    got = discounted_suffix_sums(values, np.array(lengths, np.int64), factors)
    assert got.tolist() == pytest.approx(naive(values, lengths, factors))


LONG = 3000
FAR_APART = [[LONG, 1, 0, 2, LONG // 3, 0], [0, LONG], [1] * 50 + [LONG], [2 * isqrt(LONG) + 3, 7], [LONG, LONG, LONG]]


@pytest.mark.parametrize("lengths", FAR_APART)
@pytest.mark.parametrize("factor", [1.0, 0.97, 0.0])
def test_runs_of_very_different_lengths(lengths, factor):
    rng = np.random.default_rng(0)
    values = rng.normal(size=sum(lengths))
    wanted = np.array(naive(values, lengths, np.full(len(values), factor)))
    assert discounted_suffix_sums(values, np.array(lengths), factor) == pytest.approx(wanted)
    factors = rng.uniform(0.5, 1.0, len(values))
    wanted = np.array(naive(values, lengths, factors))
    assert discounted_suffix_sums(values, np.array(lengths), factors) == pytest.approx(wanted)


@pytest.mark.parametrize("lengths", FAR_APART)
def test_a_few_rewards_in_long_runs_are_summed_exactly(lengths):
    values = np.zeros(sum(lengths))
    values[np.random.default_rng(1).integers(0, len(values), 5)] = 1.0
    wanted = naive(values, lengths, np.ones(len(values)))
    assert discounted_suffix_sums(values, np.array(lengths), 1.0).tolist() == wanted


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_what_happens_in_one_run_is_not_seen_in_another(factor):
    values = np.zeros(2000)
    values[1500] = 1e300
    got = discounted_suffix_sums(values, np.array([1400, 600]), factor)
    assert not got[:1400].any()
    assert not got[1501:].any()


def test_a_long_run_neither_overflows_nor_vanishes():
    got = discounted_suffix_sums(np.ones(100_000), np.array([100_000]), 0.5)
    assert got[0] == pytest.approx(2)
    assert got[-1] == 1


def test_t2_discounted_returns():
    assert discounted_suffix_sums(np.array([1.0, 2, 3]), np.array([3]), 0.5).tolist() == [2.75, 3.5, 3]
