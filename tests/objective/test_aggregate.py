"""Aggregates: the weight of every loss token, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentrl.errors import ConfigError
from agentrl.objective.trajectory_side.aggregate import AGGREGATES, turn_loss_counts
from agentrl.trajectory import Group, Outcome
from tests.objective.loss_play import BASE, choice
from tests.objective.play import episode, objective

close = pytest.approx


def weights_of(aggregate, groups, trajectories=None):
    method = objective("reinforce", **{**BASE, "aggregate": aggregate})
    batch = method.select(groups)
    return batch, method.token_weights(batch, None if trajectories is None else np.array(trajectories))


def t34_groups(masked_row: bool) -> list[Group]:
    """Losses 1 at four tokens and 2 at two; maybe a trajectory that a limit cut."""
    played = [episode([(1, 4, 0)]), episode([(3, 2, 0)], new_segment_at=[0])]
    if masked_row:
        played.insert(1, episode([(2, 5, 0), (1, 1, 0)], outcome=Outcome.TRUNCATED_TOKENS))
    return [Group("g", "t", tuple(played))]


T34 = {
    "token_mean": 4 / 3,
    "seq_mean_token_sum": 4,
    "seq_mean_token_mean": 1.5,
    "seq_sum_const": 1,  # over length 4 and two sequences: the mean over sequences, as verl 0.9.1; a sum would be 2
    "prompt_mean": 4 / 3,
    "turn_mean": 1.5,
}


@pytest.mark.parametrize("name", AGGREGATES)
@pytest.mark.parametrize("masked_row", [False, True])
def test_t34_aggregation(name, masked_row):
    chosen = {"name": name, "length": 4} if name == "seq_sum_const" else name
    batch, weights = weights_of(chosen, t34_groups(masked_row))
    losses = np.where(batch.token_trajectory == 0, 1.0, 2.0)
    assert (weights * losses).sum() == close(T34[name])
    assert not weights[~batch.loss_mask].any()


def several_groups() -> list[Group]:
    """Group a: turns of 1 and 2 tokens, and one of 3; group b: turns of 2, 0 and 1; group c: a cut one."""
    a = (episode([(1, 1, 0), (1, 2, 0)], new_segment_at=[1]), episode([(0, 3, 0)], seed=1))
    b = (episode([(1, 2, 0), (1, 0, 0), (1, 1, 0)], seed=2),)
    c = (episode([(1, 4, 0)], seed=3, outcome=Outcome.TRUNCATED_TIME),)
    return [Group("a", "a", a), Group("b", "b", b), Group("c", "c", c)]


def test_prompt_mean_counts_each_task_the_same():
    batch, weights = weights_of("prompt_mean", several_groups())
    assert weights[batch.loss_mask] == close(np.array([1 / 12] * 6 + [1 / 6] * 3))
    assert np.bincount(batch.group_ids[batch.token_trajectory], weights) == close([0.5, 0.5, 0])


def test_turn_mean_counts_each_turn_the_same():
    """Five turns have loss tokens: the empty one and the cut one are in no denominator."""
    batch, weights = weights_of("turn_mean", several_groups())
    fifth = 1 / 5
    wanted = [fifth, fifth / 2, fifth / 2, *[fifth / 3] * 3, fifth / 2, fifth / 2, fifth]
    assert weights[batch.loss_mask] == close(np.array(wanted))


def test_the_denominators_are_those_of_the_updates_trajectories():
    """Of trajectories 1 and 2: three turns, of 3, 2 and 1 tokens, in two groups."""
    for name, wanted in {
        "prompt_mean": [1 / 6] * 3 + [1 / 6] * 3,
        "turn_mean": [1 / 9] * 3 + [1 / 6, 1 / 6, 1 / 3],
        "token_mean": [1 / 6] * 6,
        "seq_mean_token_mean": [1 / 6] * 6,
        "seq_mean_token_sum": [1 / 2] * 6,
    }.items():
        batch, weights = weights_of(name, several_groups(), trajectories=[1, 2])
        inside = batch.loss_mask & np.isin(batch.token_trajectory, [1, 2])
        assert weights[inside] == close(np.array(wanted))
        assert not weights[~inside].any()


def test_a_token_masked_inside_a_turn_is_not_counted():
    method = objective("reinforce", **{**BASE, "aggregate": "turn_mean"})
    batch = method.select(several_groups()[:1])
    mask = batch.loss_mask.copy()
    mask[np.flatnonzero(mask)[[1, 3]]] = False
    batch = replace(batch, loss_mask=mask)
    assert turn_loss_counts(batch).tolist() == [1, 1, 2]
    assert method.token_weights(batch)[mask] == close(np.array([1 / 3, 1 / 3, 1 / 6, 1 / 6]))
    assert turn_loss_counts(method.select(several_groups()[1:2])).tolist() == [2, 0, 1]


@pytest.mark.parametrize("name", AGGREGATES)
def test_nothing_to_train_on_has_no_weights(name):
    for groups in ([], several_groups()[2:]):
        batch, weights = weights_of(choice("aggregate", name), groups)
        assert len(weights) == batch.n_tokens
        assert not weights.any()


@pytest.mark.parametrize("name", AGGREGATES)
def test_what_averages_tokens_gives_each_trajectory_the_same_weight(name):
    """`averages_tokens` is what the rules on sequence ratios ask for."""
    longer = Group("d", "d", (episode([(1, 5, 0), (1, 1, 0)], seed=4),))
    batch, weights = weights_of(choice("aggregate", name), [*several_groups(), longer])
    of_trajectory = np.bincount(batch.token_trajectory, weights)[[0, 1, 2, 4]]  # the other is cut
    same = bool(np.ptp(of_trajectory) < 1e-9)
    assert same == AGGREGATES[name].averages_tokens


def test_the_constant_must_be_a_length():
    with pytest.raises(ConfigError, match="length must be at least 1"):
        weights_of({"name": "seq_sum_const", "length": 0}, [])
