"""Clip-Cov and KL-Cov: which tokens of a step they choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentrl.errors import ConfigError
from agentrl.objective import Batch, Scores
from agentrl.objective.trajectory_side.covariance import covariances
from agentrl.objective.trajectory_side.gate import ClipCov
from agentrl.objective.trajectory_side.regularize_tokens import KlCov
from tests.objective.loss_play import BASE, tokens
from tests.objective.play import groups_of, objective


def six_tokens() -> tuple[Batch, Scores, np.ndarray]:
    """Two tokens in each of three trajectories, with advantages of mean 0 and log-probs of mean -2."""
    batch = objective("reinforce").select(groups_of([1, 0, 0.5], length=2))
    logprobs, advantages = np.full(batch.n_tokens, 99.0, np.float32), np.zeros(batch.n_tokens)
    logprobs[batch.loss_mask] = [-1, -2, -2, -2, -4, -1]
    advantages[batch.loss_mask] = [1, 1, 0, 0, -1, -1]
    return batch, Scores(logprobs), advantages


def chosen(component: ClipCov | KlCov, batch: Batch, scores: Scores, advantages: np.ndarray) -> list[float]:
    """The column at the loss tokens; elsewhere it must be 0."""
    (column,) = component.columns(batch, scores, advantages).values()
    assert column.dtype == np.float32
    assert not column[~batch.loss_mask].any()
    return column[batch.loss_mask].tolist()


def test_the_covariance_of_each_token():
    batch, scores, advantages = six_tokens()
    assert covariances("it", batch, scores, advantages).tolist() == [1, 0, 0, 0, 2, -1]
    assert covariances("it", batch, scores, advantages + 5 * batch.loss_mask).tolist() == [1, 0, 0, 0, 2, -1]


@pytest.mark.parametrize(
    ("share", "low", "high", "wanted"),
    [
        (0.4, 0.2, 5.0, [1, 0, 0, 0, 1, 0]),
        (0.4, 0.2, 1.5, [1, 0, 0, 0, 0, 0]),
        (0.4, 1.0, 5.0, [0, 0, 0, 0, 1, 0]),
        (1.0, -2.0, 5.0, [1] * 6),
        (1.0, 3.0, 5.0, [0] * 6),
    ],
)
def test_clip_cov_draws_from_the_band(share, low, high, wanted):
    gate = ClipCov(share=share, cov_low=low, cov_high=high)
    assert chosen(gate, *six_tokens()) == wanted


def test_clip_cov_draws_at_random_and_the_same_for_the_same_step():
    batch, scores, advantages = six_tokens()
    gate = ClipCov(share=0.2, cov_low=0.5)  # one of the two candidates
    first = chosen(gate, batch, scores, advantages)
    assert sum(first) == 1
    assert chosen(gate, batch, scores, advantages) == first
    drawn = set()
    for seed in range(20):
        other = replace(batch, token_ids=np.random.default_rng(seed).integers(0, 99, batch.n_tokens))
        drawn.add(int(np.argmax(chosen(gate, other, scores, advantages))))
    assert drawn == {0, 4}


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(0.0002, [0, 0, 0, 0, 1, 0]), (0.34, [1, 0, 0, 0, 1, 0]), (0.5, [1, 1, 0, 0, 1, 0]), (1.0, [1] * 6)],
)
def test_kl_cov_takes_the_highest_covariances(share, wanted):
    assert chosen(KlCov(share=share), *six_tokens()) == wanted


@pytest.mark.parametrize("component", [ClipCov(), KlCov()])
def test_they_need_the_log_probs_at_the_steps_start(component):
    batch, _, advantages = six_tokens()
    assert component.needs_logprobs
    with pytest.raises(ConfigError, match="_cov' reads the policy's log-probs"):
        component.columns(batch, Scores(), advantages)
    nothing = objective("reinforce").select([])
    assert chosen(component, nothing, Scores(), np.zeros(0)) == []


@pytest.mark.parametrize("component", [ClipCov(share=1.0, cov_low=-9.0, cov_high=9.0), KlCov(share=1.0)])
def test_masked_tokens_are_in_no_mean_and_not_chosen(component):
    batch, scores, advantages = six_tokens()
    mask = batch.loss_mask.copy()
    mask[np.flatnonzero(mask)[-1]] = False
    masked = replace(batch, loss_mask=mask)
    assert chosen(component, masked, scores, advantages * mask) == [1] * 5


@pytest.mark.parametrize("slots", [{"gate": "clip_cov"}, {"regularize": ["kl_cov"]}, {"regularize": ["positive_nll"]}])
def test_a_missing_column_is_told(slots):
    method = objective("reinforce", **{**BASE, **slots})
    with pytest.raises(ConfigError, match="the loss reads the column"):
        method.loss(tokens([-1.0], [-1.0], [1.0], columns={}))


def test_two_that_choose_into_one_column_are_refused():
    with pytest.raises(ConfigError, match="prepare the same column"):
        objective("reinforce", **{**BASE, "regularize": [{"name": "kl_cov", "share": s} for s in (0.1, 0.2)]})
    objective("reinforce", **{**BASE, "regularize": ["kl_cov", "positive_nll"], "gate": "clip_cov"})
