"""Losses and their gradients: agentrl's trajectory side against verl's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.parity import ours
from tests.parity.batches import Sample, sample
from tests.parity.compare import differ, same, shows
from tests.parity.ours import Loss
from tests.parity.verl_peer import aggregate, core, policy_loss, with_gradient

pytestmark = pytest.mark.slow
SEEDS = range(3)
CLIP = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
MODES = {
    "verl agg_loss token-mean": ("token-mean", {}, "token_mean"),
    "verl agg_loss seq-mean-token-mean": ("seq-mean-token-mean", {}, "seq_mean_token_mean"),
    "verl agg_loss seq-mean-token-sum": ("seq-mean-token-sum", {}, "seq_mean_token_sum"),
    "verl agg_loss seq-mean-token-sum-norm": (
        "seq-mean-token-sum-norm",
        {"loss_scale_factor": 40},
        {"name": "seq_sum_const", "length": 40},
    ),
}


def moved(seed: int) -> Sample:
    """A batch whose policy has moved so far that every gate has something to do."""
    return sample(seed, drift=0.5)


@shows(*MODES)
@pytest.mark.parametrize("key", MODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_t34_aggregations_agree_and_a_masked_row_counts_nowhere(key, seed):
    mode, settings, component = MODES[key]
    played = sample(seed)
    advantages = played.rows.of(played.advantages)
    theirs = aggregate(played, lambda logprobs: -advantages * logprobs, mode, **settings)
    same(theirs, ours.loss(played, ratio="none", aggregate=component))


TOKEN_LOSSES = {
    "verl vanilla": (
        "vanilla",
        {**CLIP, "clip_ratio_c": 1.6},
        {"gate": {"name": "dual_clip", "low": 0.2, "high": 0.28, "cap": 1.6}},
    ),
    "verl sapo": (
        "sapo",
        {"tau_pos": 1.0, "tau_neg": 2.0},
        {"gate": {"name": "sigmoid", "tau_positive": 1.0, "tau_negative": 2.0}, "aggregate": "seq_mean_token_mean"},
    ),
    "verl gpg loss": ("gpg", {}, {"ratio": "none"}),
    "verl gspo": (
        "gspo",
        {"clip_ratio_low": 0.1, "clip_ratio_high": 0.15},
        {"ratio": "seq_token_sg", "gate": {"name": "clip", "low": 0.1, "high": 0.15}},
    ),
    "verl cispo": ("cispo", CLIP, {"gate": {"name": "detached_clip", "floor": 0.8, "cap": 1.28}}),
    "verl dppo_tv": (
        "dppo_tv",
        {"clip_ratio_low": 0.05, "clip_ratio_high": 0.1, "clip_ratio_c": 1.6},
        {"gate": {"name": "prob_mask", "low": 0.05, "high": 0.1, "cap": 1.6}},
    ),
    "verl dro": (
        "dro",
        {"loss": {"dro_beta": 0.7}},
        {"ratio": "none", "regularize": {"name": "behavior_k2", "coef": 0.35}},
    ),
}


@shows(*TOKEN_LOSSES)
@pytest.mark.parametrize("key", TOKEN_LOSSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_token_losses_agree(key, seed):
    name, settings, slots = TOKEN_LOSSES[key]
    played = moved(seed)
    old = played.behavior if name == "dro" else None
    theirs, mine = policy_loss(name, played, old=old, **settings), ours.loss(played, **slots)
    same(theirs, mine)
    cut = (theirs.gradient == 0) & played.batch.loss_mask
    assert (cut.sum() > 3) == (name in ("vanilla", "gspo", "dppo_tv"))


@shows("verl geo_mean")
@pytest.mark.parametrize("seed", SEEDS)
def test_gmpo_agrees(seed):
    played = sample(seed, drift=0.5, truncated=False)
    slots = {
        "ratio": "token",
        "gate": {"name": "logspace_geo", "bound": 0.4},
        "aggregate": "seq_mean_token_mean",
    }
    theirs = policy_loss("geo_mean", played, played.per_trajectory, clip_ratio_low=0.4, clip_ratio_high=0.4)
    same(theirs, ours.loss(played, played.per_trajectory, **slots))
    masked = moved(seed)
    theirs = policy_loss("geo_mean", masked, masked.per_trajectory, clip_ratio_low=0.4, clip_ratio_high=0.4)
    mine = ours.loss(masked, masked.per_trajectory, **slots)
    with_tokens = (masked.rows.mask.sum(1) > 0).sum().item()
    assert with_tokens < len(masked.rows.mask)
    share = with_tokens / len(masked.rows.mask)
    same(theirs, Loss(mine.value * share, mine.gradient * share))
    differ(theirs, mine)


@shows("verl clip_cov")
@pytest.mark.parametrize("seed", SEEDS)
def test_clip_cov_chooses_the_same_tokens_where_the_policy_has_not_moved(seed):
    """All candidates are taken, so that chance chooses nothing. Theirs: by log pi now; ours: at the step's start."""
    slots = {"gate": {"name": "clip_cov", "low": 0.2, "high": 0.28, "share": 1.0, "cov_low": 0.2, "cov_high": 0.8}}
    settings = {**CLIP, "loss": {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.2, "clip_cov_ub": 0.8}}
    still = sample(seed, drift=0.0)
    theirs = policy_loss("clip_cov", still, **settings)
    same(theirs, ours.loss(still, **slots))
    dropped = (theirs.gradient == 0) & still.batch.loss_mask
    assert 3 < dropped.sum() < still.batch.loss_mask.sum() / 2
    played = moved(seed)
    mask = played.batch.loss_mask
    clip = {"name": "clip", "low": 0.2, "high": 0.28}
    clipped = (ours.loss(played, gate=clip).gradient == 0) & mask
    for logprobs, loss in (
        (played.logprobs, policy_loss("clip_cov", played, **settings)),
        (played.old, ours.loss(played, **slots)),
    ):
        cov = (played.advantages - played.advantages[mask].mean()) * (logprobs - logprobs[mask].mean())
        chosen = mask & (cov > 0.2) & (cov < 0.8)
        assert ((loss.gradient == 0) & mask == (clipped | chosen)).all()
    differ(policy_loss("clip_cov", played, **settings), ours.loss(played, **slots))


@shows("verl kl_cov")
@pytest.mark.parametrize("seed", SEEDS)
def test_kl_cov_agrees_where_the_choice_does(seed):
    """Theirs chooses by log pi now, ours at the step's start: the same tokens after a small move."""
    settings = {"loss": {"kl_cov_ratio": 0.1, "ppo_kl_coef": 2.0}}
    slots = {"gate": "none", "regularize": {"name": "kl_cov", "coef": 2.0, "share": 0.1}}
    played = sample(seed, drift=0.003)
    theirs = policy_loss("kl_cov", played, **settings)
    same(theirs, ours.loss(played, **slots))
    plain = ours.loss(played, gate="none")
    assert (np.abs(theirs.gradient - plain.gradient) > 1e-6).sum() == int(0.1 * played.batch.loss_mask.sum())
    played = moved(seed)
    differ(policy_loss("kl_cov", played, **settings), ours.loss(played, **slots))


KINDS = {
    "verl kl_penalty k1": ("kl", "k1"),
    "verl kl_penalty k2": ("k2", "k2"),
    "verl kl_penalty k3": ("k3", "k3"),
    "verl kl_penalty k3+": ("k3+", "k3_plus"),
}


@shows(*KINDS)
@pytest.mark.parametrize("key", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_kl_losses_agree(key, seed):
    theirs_name, mine_name = KINDS[key]
    played = sample(seed)
    reference = played.rows.of(played.reference)
    theirs = aggregate(played, lambda logprobs: core.kl_penalty(logprobs, reference, theirs_name), "token-mean")
    mine = ours.loss(played, 0 * played.advantages, regularize={"name": mine_name, "coef": 1.0})
    if mine_name == "k1":  # its gradient is the same for every token, so the check that numbers vary would not pass
        assert mine.value == pytest.approx(theirs.value, rel=1e-5)
        np.testing.assert_allclose(mine.gradient, theirs.gradient, atol=1e-7)
    else:
        same(theirs, mine)


@shows("verl kl_penalty k3, far off")
def test_k3_is_bounded_in_verl_and_not_here():
    played = sample(0)
    far = -4.0  # log pi - log pi_ref
    logprobs = torch.tensor(played.reference + far, requires_grad=True)
    theirs = core.kl_penalty(logprobs, torch.tensor(played.reference), "k3")
    assert theirs.tolist() == pytest.approx([10.0] * len(theirs))
    assert torch.autograd.grad(theirs.sum(), logprobs)[0].abs().max() == 0
    mine = ours.loss(
        replace(played, logprobs=played.reference + far), 0 * played.advantages, regularize={"name": "k3", "coef": 1.0}
    )
    assert mine.value == pytest.approx(np.exp(4) - 1 - 4)
    assert mine.gradient.sum() == pytest.approx(1 - np.exp(4))


@shows("verl compute_value_loss")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_value_loss_agrees(seed):
    played = sample(seed)
    rows, leaf = played.rows, torch.tensor(played.values, requires_grad=True)
    value, clipped = core.compute_value_loss(
        rows.of(leaf), rows.of(played.returns), rows.of(played.old_values), rows.mask, cliprange_value=0.5
    )
    assert 0.1 < clipped < 0.9
    critic = {"name": "token_head", "coef": 1.0, "clip": 0.5}
    slots = {"credit": "gae_token", "baseline": "value", "critic": critic}
    same(with_gradient(value, leaf), ours.loss(played, 0 * played.advantages, of="values", **slots))


@shows("verl entropy")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_entropy_bonus_agrees(seed):
    played = sample(seed)
    leaf = torch.tensor(played.entropies, requires_grad=True)
    theirs = with_gradient(-0.3 * core.agg_loss(played.rows.of(leaf), played.rows.mask, "seq-mean-token-mean"), leaf)
    slots = {"aggregate": "seq_mean_token_mean", "regularize": {"name": "entropy", "coef": 0.3}}
    same(theirs, ours.loss(played, 0 * played.advantages, of="entropies", **slots))
