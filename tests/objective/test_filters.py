"""Filters: which groups, trajectories and tokens stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.objective.trajectory_side.base import GroupFilter, TokenFilter
from agentrl.objective.trajectory_side.select import FILTERS, by_variance, reward_variance
from agentrl.trajectory import Group, Outcome
from tests.objective.play import episode, groups_of, objective, per_trajectory


def names(groups: list[Group]) -> list[str]:
    return [group.group_id for group in groups]


SPREADS = ([1, 1], [1, 0], [0.5, 0], [1, 0, 0, 0], [0.3])  # variances 0, .5, .125, .25, 0


def test_the_variance_of_a_groups_rewards_has_n_minus_1():
    assert [reward_variance(g) for g in groups_of(*SPREADS)] == pytest.approx([0, 0.5, 0.125, 0.25, 0])
    assert by_variance(groups_of(*SPREADS)) == [1, 3, 2, 0, 4]


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.2, "1"), (0.21, "13"), (0.4, "13"), (0.6, "123"), (0.61, "0123"), (1.0, "01234"), (0.001, "1")],
)
def test_std_top_p_keeps_the_ceiling_of_a_share(share, kept):
    assert names(FILTERS["std_top_p"](share=share).keep(groups_of(*SPREADS))) == list(kept)


def test_a_share_that_divides_evenly_is_not_rounded_up():
    groups = groups_of(*[[float(g), 0] for g in range(100)])
    assert 0.07 * 100 > 7
    assert len(FILTERS["std_top_p"](share=0.07).keep(groups)) == 7
    assert names(FILTERS["std_top_p"]().keep(groups_of([1, 0], [1, 0], [1, 0], [2, 0]))) == ["3"]
    assert names(FILTERS["std_top_p"](share=0.5).keep(groups_of([1, 0], [1, 0], [1, 0]))) == ["0", "1"]


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.5, "1"), (0.57, "1"), (0.58, "13"), (0.857, "13"), (0.9, "123"), (1.0, "123")],
)
def test_snr_top_p_keeps_as_few_groups_as_hold_a_share_of_the_variance(p, kept):
    """Of a sum of .875 the first holds .5714, the first two .8571."""
    assert names(FILTERS["snr_top_p"](p=p).keep(groups_of(*SPREADS))) == list(kept)


def test_a_share_that_is_held_exactly_needs_no_further_group():
    for n, p in ((2, 0.5), (4, 0.25), (10, 0.3), (3, 1 / 3)):
        assert len(FILTERS["snr_top_p"](p=p).keep(groups_of(*[[1, 0]] * n))) == round(n * p)


def test_snr_top_p_keeps_nothing_where_nothing_varies():
    assert FILTERS["snr_top_p"]().keep(groups_of([1, 1], [0.1 + 0.2, 0.3])) == []
    assert FILTERS["snr_top_p"]().keep([]) == FILTERS["std_top_p"]().keep([]) == []


def test_zero_variance_drop_says_how_often_to_refill():
    assert FILTERS["zero_variance_drop"]().refill == 0
    assert FILTERS["zero_variance_drop"](refill=3).refill == 3
    assert names(FILTERS["zero_variance_drop"]().keep(groups_of(*SPREADS))) == ["1", "2", "3"]
    others = [cls for name, cls in FILTERS.items() if name != "zero_variance_drop" and issubclass(cls, GroupFilter)]
    assert [cls().refill for cls in others] == [0] * len(others)


def void_groups() -> list[Group]:
    def one(reward: float, seed: int, void: bool):
        played = episode([(1, 1, 0.0), (1, 2, reward)], seed=seed)
        return replace(played, turns=(replace(played.turns[0], void=void), played.turns[1]))

    greedy = one(1, 9, True)
    return [
        Group("a", "a", (one(1, 0, False), one(0, 1, True), one(0, 2, False)), greedy),
        Group("b", "b", (one(1, 3, True), one(0, 4, True))),
    ]


def test_a_trajectory_with_a_void_turn_leaves_its_group():
    groups = void_groups()
    (kept,) = FILTERS["void_turn_drop"]().keep(groups)
    assert kept.trajectories == (groups[0].trajectories[0], groups[0].trajectories[2])
    assert kept.greedy is groups[0].greedy
    method = objective("dr_grpo", filters=["void_turn_drop"])
    credited = method.credit(method.select(groups), Scores())
    assert per_trajectory(credited) == [0.5, -0.5]
    assert credited.metrics["episodes/filtered"] == 3
    assert credited.metrics["groups/filtered"] == 1
    assert credited.metrics["void_turns"] == pytest.approx(3 / 10)
    assert objective("dr_grpo").select(groups).n_trajectories == 5


def test_filters_run_in_their_order():
    """The void one of three is the only one with another reward."""
    played = groups_of([0, 1, 1])[0].trajectories
    void = replace(played[0], turns=(replace(played[0].turns[0], void=True),))
    groups = [Group("g", "t", (void, *played[1:]))]
    assert objective("dr_grpo", filters=["zero_variance_drop", "void_turn_drop"]).select(groups).n_trajectories == 2
    assert objective("dr_grpo", filters=["void_turn_drop", "zero_variance_drop"]).select(groups).n_trajectories == 0


def test_truncated_trajectories_are_masked_and_counted_as_such():
    cut = episode([(1, 2, 1.0)], outcome=Outcome.TRUNCATED_TIME)
    group = Group("g", "t", (cut, episode([(1, 2, 0.0)], seed=1)))
    batch = objective("dr_grpo", filters=["truncated_mask"]).select([group])
    assert batch.loss_counts.tolist() == [0, 2]
    assert batch.metrics["episodes/masked"] == 1
    assert batch.metrics["episodes/filtered"] == 0


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_takes_failed_trajectories_and_nothing(name):
    method = objective("dr_grpo", filters=[name])
    assert method.select([]).n_trajectories == 0
    failed = episode([(1, 1, 0.0)], outcome=Outcome.FAILED_ENV)
    groups = [replace(g, trajectories=(failed, *g.trajectories)) for g in groups_of([1, 0], [0, 1, 1])]
    batch = method.select([*groups, Group("f", "f", (failed,))])
    assert all(t.reward is not None for t in batch.trajectories)
    assert batch.n_trajectories in (2, 5)
    assert isinstance(method.spec.filters[0], GroupFilter | TokenFilter)
    assert np.array_equal(batch.loss_mask, batch.action_mask)


def test_filters_that_rank_by_spread_need_groups():
    needing = [name for name, cls in FILTERS.items() if cls.needs_groups]
    assert needing == ["zero_variance_drop", "std_top_p", "snr_top_p"]
    for name in needing:
        with pytest.raises(ConfigError, match="group_size"):
            objective("reinforce", filters=[name]).spec.check(group_size=1)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"name": "zero_variance_drop", "refill": -1}, "refill must be at least 0"),
        ({"name": "std_top_p", "share": 0.0}, "share must be in"),
        ({"name": "std_top_p", "share": 1.5}, "share must be in"),
        ({"name": "snr_top_p", "p": 0.0}, "p must be in"),
    ],
)
def test_parameters_out_of_range_are_refused(choice, says):
    with pytest.raises(ConfigError, match=says):
        objective("reinforce", filters=[choice])
