"""Corrections for the sampler: agentrl's mismatch slot against verl's rollout correction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.parity import ours
from tests.parity.batches import Sample, sample
from tests.parity.compare import differ, same, shows
from tests.parity.ours import Loss
from tests.parity.verl_peer import corrections, policy_loss

pytestmark = pytest.mark.slow
SEEDS = range(3)
CLIP = {"name": "clip", "low": 0.2, "high": 0.28}
SETTINGS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 1e6}
WEIGHTS = {
    "verl rollout_is token": ("token", 1.5, {"name": "token_tis", "cap": 1.5}),
    "verl rollout_is sequence": ("sequence", 1.5, {"name": "sequence_tis", "cap": 1.5}),
    "verl rollout_is token, lower_upper": ("token", "0.7_1.5", {"name": "token_mask", "low": 0.7, "high": 1.5}),
    "verl rollout_is sequence, lower_upper": (
        "sequence",
        "0.3_2.0",
        {"name": "sequence_mask", "low": 0.3, "high": 2.0},
    ),
}


def log_ratio(played: Sample) -> torch.Tensor:
    return played.rows.of(played.old) - played.rows.of(played.behavior)


@shows(*WEIGHTS)
@pytest.mark.parametrize("key", WEIGHTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_importance_weights_agree(key, seed):
    level, threshold, mismatch = WEIGHTS[key]
    played = sample(seed)
    weights, _ = corrections.compute_rollout_correction_weights(
        log_ratio(played), played.rows.mask, rollout_is=level, rollout_is_threshold=threshold
    )
    theirs = policy_loss("vanilla", played, weights=weights, **SETTINGS)
    same(theirs, ours.loss(played, gate=CLIP, mismatch=mismatch))
    differ(theirs, ours.loss(played, gate=CLIP))


REJECTIONS = {
    "verl rollout_rs seq_mean_k1": ("seq_mean_k1", 0.95, 1.4, "geometric_mask"),
    "verl rollout_rs token_k1": ("token_k1", 0.7, 1.5, "token_mask"),
    "verl rollout_rs seq_sum_k1": ("seq_sum_k1", 0.3, 2.0, "sequence_mask"),
}


@shows(*REJECTIONS)
@pytest.mark.parametrize("key", REJECTIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_t39_rejections_want_inverted_bounds_and_shrink_the_denominator(key, seed):
    """Their statistic is log(mu / pi_old), ours pi_old / mu: a band low..high here is 1/high .. 1/low there.

    They take the rejected tokens out of the mean; here a rejected token counts as a loss of 0, and what stays in the
    token and sequence masks keeps its ratio as a weight (IcePop, TRL), which their rejection alone does not give it.
    """
    option, low, high, name = REJECTIONS[key]
    played = sample(seed)
    mask, _ = corrections.compute_rollout_rejection_mask(
        log_ratio(played), played.rows.mask, option, f"{1 / high}_{1 / low}"
    )
    kept = played.rows.back(mask) > 0
    share = mask.sum().item() / played.rows.mask.sum().item()
    assert 0.1 < share < 0.95
    mine = ours.loss(played, gate=CLIP, mismatch={"name": name, "low": low, "high": high})
    assert ((mine.gradient != 0) <= kept).all()
    weights = None
    if name != "geometric_mask":
        level = "token" if name == "token_mask" else "sequence"
        weights, _ = corrections.compute_rollout_correction_weights(log_ratio(played), mask, level, 1e6)
    theirs = policy_loss("vanilla", played, mask=mask, weights=weights, **SETTINGS)
    same(Loss(theirs.value * share, theirs.gradient * share), mine)
    differ(theirs, mine)
    same_words, _ = corrections.compute_rollout_rejection_mask(
        log_ratio(played), played.rows.mask, option, f"{low}_{high}"
    )
    assert (same_words != mask).any()


@shows("verl bypass_mode ppo_clip")
@pytest.mark.parametrize("seed", SEEDS)
def test_bypass_with_clipping_is_the_sampler_as_the_anchor(seed):
    played = sample(seed)
    theirs = policy_loss(
        "bypass_mode",
        played,
        old=played.behavior,
        loss={"rollout_correction": {"loss_type": "ppo_clip", "rollout_is": "token"}},
        clip_ratio_low=0.2,
        clip_ratio_high=0.28,
        clip_ratio_c=1.7,
    )
    gate = {"name": "dual_clip", "low": 0.2, "high": 0.28, "cap": 1.7}
    same(theirs, ours.loss(played, anchor="behavior", gate=gate))
    differ(theirs, ours.loss(played, anchor="old", gate=gate))


@shows("verl bypass_mode reinforce")
@pytest.mark.parametrize("seed", SEEDS)
def test_bypass_with_reinforce_is_a_detached_ratio_to_the_sampler(seed):
    played = sample(seed)
    correction = {"loss_type": "reinforce", "rollout_is": "token", "rollout_is_threshold": 1.5}
    theirs = policy_loss("bypass_mode", played, old=played.behavior, loss={"rollout_correction": correction})
    gate = {"name": "detached_clip", "floor": 0.0, "cap": 1.5}
    same(theirs, ours.loss(played, anchor="behavior", gate=gate))


@shows("verl compute_offpolicy_metrics")
@pytest.mark.parametrize("seed", SEEDS)
def test_diagnostics_of_the_sampler_agree(seed):
    played = sample(seed)
    rows = played.rows
    theirs = corrections.compute_offpolicy_metrics(rows.of(played.old), rows.of(played.behavior), rows.mask)
    _, weights = corrections.compute_rollout_correction_weights(log_ratio(played), rows.mask, "token", 1e6)
    mine = ours.diagnosis(played)
    assert mine["behavior_k1"] == pytest.approx(theirs["kl"], abs=1e-6)
    assert mine["behavior_k3"] == pytest.approx(theirs["k3_kl"], rel=1e-5)
    assert mine["sampler_ratio_squared"] - 1 == pytest.approx(theirs["chi2_token"], rel=1e-5)
    ess = mine["sampler_ratio"] ** 2 / mine["sampler_ratio_squared"]
    assert ess == pytest.approx(weights["rollout_is_eff_sample_size"], rel=1e-5)
    assert 0.5 < ess < 0.95


def test_the_sampler_is_far_enough_off_for_every_bound():
    ratios = np.exp(log_ratio(sample(0))[sample(0).rows.mask > 0].numpy())
    assert (ratios > 1.5).sum() > 5
    assert (ratios < 0.7).sum() > 5
