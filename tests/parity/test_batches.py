"""The random batches are what the comparisons need them to be: nothing agrees in them for a trivial reason."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.batches import sample


@pytest.mark.parametrize("seed", range(3))
def test_episodes_differ_in_everything_that_matters(seed):
    batch = sample(seed).batch
    assert len(set(np.bincount(batch.group_ids))) > 2  # sizes of groups
    assert len(set(batch.action_counts.tolist())) > 4
    assert len(set(batch.turn_counts.tolist())) > 2
    assert batch.n_rows > batch.n_trajectories  # some histories were rewritten
    inside = ~batch.action_mask[1:-1] & (np.diff(batch.token_trajectory)[1:] == 0)
    assert inside.sum() > 20  # observations between actions
    assert 2 <= (batch.loss_counts == 0).sum() < batch.n_trajectories / 2  # masked, but in the statistics
    assert np.abs(batch.turn_rewards).min() > 0  # every turn has a reward
    assert np.unique(batch.rewards).size == batch.n_trajectories


@pytest.mark.parametrize("seed", range(3))
def test_policies_and_samplers_have_moved_both_ways(seed):
    played = sample(seed, drift=0.5)
    trained = played.batch.loss_mask
    for log_ratio in (played.logprobs - played.old, played.old - played.behavior, played.old - played.reference):
        ratio = np.exp(log_ratio)
        for sign in (1, -1):
            of_sign = trained & (np.sign(played.advantages) == sign)
            assert (ratio[of_sign] > 1.28).sum() > 3
            assert (ratio[of_sign] < 0.8).sum() > 3
            assert ((ratio[of_sign] > 0.8) & (ratio[of_sign] < 1.28)).sum() > 3


def test_rows_hold_every_token_once_and_bring_it_back():
    played = sample(0)
    rows, numbers = played.rows, np.arange(1.0, played.batch.n_tokens + 1)
    assert sorted(rows.flat[rows.flat >= 0].tolist()) == list(range(played.batch.n_tokens))
    assert (rows.back(rows.of(numbers), (rows.flat >= 0).double()) == numbers).all()
    assert (rows.of(numbers, fill=-7.0)[rows.flat < 0] == -7).all()
    assert rows.mask.sum() == played.batch.loss_counts.sum()
    assert played.token_rewards.sum(1).tolist() == pytest.approx(played.batch.rewards.tolist())
    acted = played.acted
    assert (acted.actions == (acted.flat >= 0)).all()
    assert acted.actions.sum() == played.batch.action_mask.sum()


def test_the_same_seed_draws_the_same_batch():
    a, b, c = sample(1), sample(1), sample(2)
    assert (a.logprobs == b.logprobs).all()
    assert a.batch.rewards.tolist() == b.batch.rewards.tolist() != c.batch.rewards.tolist()
