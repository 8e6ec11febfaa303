"""Intervals: against scipy and statsmodels, by hand, and by how often they cover the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from agentrl.evaluate.statistics import (
    UNKNOWN,
    Interval,
    mean_interval,
    pass_at_k,
    pass_at_k_interval,
    student_quantile,
    success_interval,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (380, 400), (1319, 1319)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_equals_statsmodels(successes: int, n: int, level: float) -> None:
    found = wilson(successes, n, level)
    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    assert (found.mean, found.n) == (successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_wilson_by_hand() -> None:
    # p = 1/2, n = 4, z = 1.96: centre 1/2, half = 1.96 sqrt(1/16 + 3.8416/64) / (1 + 3.8416/4) = 0.349955
    found = wilson(2, 4)
    assert found.low == pytest.approx(0.150045, abs=1e-5)
    assert found.high == pytest.approx(0.849955, abs=1e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_brackets_the_estimate_and_stays_a_probability(counts: tuple[int, int]) -> None:
    found = wilson(*counts)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert (found.low == 0) == (counts[0] == 0)
    assert (found.high == 1) == (counts[0] == counts[1])


def test_nothing_played_is_unknown_and_never_zero() -> None:
    for found in (wilson(0, 0), success_interval([]), success_interval([[], []]), mean_interval([[]])):
        assert found.n == 0
        assert all(math.isnan(x) for x in (found.mean, found.low, found.high))
        assert found.to_dict() == {"mean": None, "low": None, "high": None, "n": 0}
    assert pass_at_k_interval([[True]], 2).to_dict() == UNKNOWN.to_dict()


def test_to_dict() -> None:
    assert Interval(0.5, 0.25, 0.75, 8).to_dict() == {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}


@pytest.mark.parametrize("successes", [-1, 3])
def test_impossible_counts_are_refused(successes: int) -> None:
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(successes, 2)


def test_impossible_level_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence level"):
        wilson(1, 2, level=95)


def test_one_attempt_a_task_is_wilson() -> None:
    attempts = [[True]] * 7 + [[False]] * 3 + [[]]
    assert success_interval(attempts) == wilson(7, 10)
    assert success_interval([[1.0], [0.0]]) == wilson(1, 2)


def test_scores_that_are_no_successes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        success_interval([[0.5], [1.0]])
    with pytest.raises(ValueError, match="0 or 1"):
        success_interval([[2.0, 0.0], [1.0, 1.0]])


def test_attempts_that_always_agree_count_once_a_task() -> None:
    solved = [True] * 30 + [False] * 20
    clustered = success_interval([[s] * 8 for s in solved])
    z, t = (float(d.ppf(0.975)) for d in (scipy.stats.norm(), scipy.stats.t(49)))
    single = wilson(30, 50, level=2 * scipy.stats.norm.cdf(t) - 1)
    assert clustered.n == 400
    assert (clustered.low, clustered.high) == pytest.approx((single.low, single.high), abs=1e-4)
    assert z < t


def test_attempts_that_never_agree_more_than_chance_are_never_worth_more_than_their_number() -> None:
    balanced = success_interval([[True, False]] * 50)  # one of two at every task: the variance by task is 0
    by_number = wilson(50, 100)
    assert balanced.low <= by_number.low
    assert balanced.high >= by_number.high
    assert balanced.high - balanced.low < 1.03 * (by_number.high - by_number.low)


@pytest.mark.parametrize("value", [True, False])
def test_all_or_none_solved_rests_on_the_tasks_not_the_attempts(value: bool) -> None:
    found, single = success_interval([[value] * 8] * 100), wilson(100 * value, 100)
    assert (found.low, found.high) == (single.low, single.high)
    assert found.n == 800


def test_single_task_is_worth_one_attempt() -> None:
    found, single = success_interval([[True, False, True, False]]), wilson(0.5, 1)
    assert (found.low, found.high) == (single.low, single.high)


def test_unequal_numbers_of_attempts_weigh_by_attempt() -> None:
    assert success_interval([[True] * 3, [False]]).mean == 0.75


def _coverage(alpha: float, beta: float, tasks: int, repeats: int, *, naive: bool = False, runs: int = 1500) -> float:
    """How often the interval holds the true rate, where task i is solved with probability p_i ~ Beta(alpha, beta)."""
    rng = np.random.default_rng(0)
    truth, hits = alpha / (alpha + beta), 0
    for _ in range(runs):
        solved = rng.random((tasks, repeats)) < rng.beta(alpha, beta, (tasks, 1))
        by_task = solved.astype(float).tolist()
        found = wilson(int(solved.sum()), solved.size) if naive else success_interval(by_task)
        hits += found.low <= truth <= found.high
    return hits / runs


@pytest.mark.parametrize(
    ("alpha", "beta", "tasks", "repeats"),
    [
        (0.5, 0.5, 60, 8),
        (0.5, 0.5, 20, 4),
        (2.0, 0.5, 100, 4),
        (50.0, 50.0, 50, 4),
        (9.0, 1.0, 30, 8),
        (0.2, 0.8, 15, 2),
    ],
)
def test_clustered_interval_covers_the_truth(alpha: float, beta: float, tasks: int, repeats: int) -> None:
    assert 0.935 <= _coverage(alpha, beta, tasks, repeats) <= 0.985


def test_counting_every_attempt_as_independent_would_not_cover() -> None:
    assert _coverage(0.5, 0.5, 60, 8, naive=True) < 0.8


def test_mean_of_single_scores_is_the_t_interval() -> None:
    scores = np.random.default_rng(1).normal(3, 2, 25)
    low, high = scipy.stats.t.interval(0.95, 24, loc=scores.mean(), scale=scipy.stats.sem(scores))
    found = mean_interval([[s] for s in scores.tolist()])
    assert found.n == 25
    assert (found.mean, found.low, found.high) == pytest.approx((scores.mean(), low, high), rel=1e-5)


def test_mean_of_equal_clusters_is_the_t_interval_of_their_means() -> None:
    scores = np.random.default_rng(2).normal(0, 1, (12, 5)) + np.random.default_rng(3).normal(0, 3, (12, 1))
    means = scores.mean(1)
    low, high = scipy.stats.t.interval(0.95, 11, loc=means.mean(), scale=scipy.stats.sem(means))
    found = mean_interval(scores.tolist())
    assert found.n == 60
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3)


def test_mean_over_one_task_has_no_limits() -> None:
    found = mean_interval([[1.0, 3.0]])
    assert (found.mean, found.n) == (2.0, 2)
    assert found.to_dict()["low"] is None


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 10, 30, 400])
@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_student_quantile_equals_scipy(df: int, level: float) -> None:
    assert student_quantile(df, level) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, df), rel=2e-3)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (6, 5, 3), (4, 1, 4)])
def test_pass_at_k_is_the_share_of_all_draws(n: int, c: int, k: int) -> None:
    attempts = [True] * c + [False] * (n - c)
    draws = [any(draw) for draw in itertools.combinations(attempts, k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws))


def test_pass_at_k_wants_k_attempts() -> None:
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(3, 1, 4)
    with pytest.raises(ValueError, match="between 0 and n"):
        pass_at_k(3, 4, 2)


def test_pass_at_k_over_tasks() -> None:
    found = pass_at_k_interval([[True, False], [False, False], [True, True], [True]], 2)
    assert found == wilson(2, 3)  # the task with a single attempt says nothing about two
    more = pass_at_k_interval([[True, False, False], [False, False]], 2)
    assert more.mean == pytest.approx((2 / 3 + 0) / 2)
    assert (more.low, more.high, more.n) == (0.0, 1.0, 2)
