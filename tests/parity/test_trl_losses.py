"""Losses and their gradients, and corrections: agentrl's trajectory side against TRL's trainers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.parity import ours
from tests.parity.batches import sample
from tests.parity.compare import differ, same, shows
from tests.parity.ours import Loss
from tests.parity.trl_peer import SIZES, Gmpo, Grpo, Rloo, whole

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("double")]
SEEDS = range(3)
CLIP = {"name": "clip", "low": 0.2, "high": 0.28}
LOSSES = {
    "trl grpo": ({}, {"gate": CLIP, "aggregate": "seq_mean_token_mean"}),
    "trl bnpo": ({"loss_type": "bnpo"}, {"gate": CLIP}),
    "trl dapo": ({"loss_type": "dapo"}, {"gate": CLIP}),
    "trl dr_grpo": (
        {"loss_type": "dr_grpo", "max_completion_length": 40},
        {"gate": CLIP, "aggregate": {"name": "seq_sum_const", "length": 40}},
    ),
    "trl delta": (
        {"loss_type": "dapo", "delta": 1.6},
        {"gate": {"name": "two_sided", "low": 0.2, "high": 0.28, "delta": 1.6}},
    ),
    "trl cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.5},
        {"gate": {"name": "detached_clip", "floor": 0.0, "cap": 1.5}},
    ),
    "trl sapo": (
        {"loss_type": "sapo", "sapo_temperature_neg": 2.0},
        {
            "gate": {"name": "sigmoid", "tau_positive": 1.0, "tau_negative": 2.0},
            "aggregate": "seq_mean_token_mean",
        },
    ),
    "trl grpo, beta": (
        {"beta": 0.5},
        {"gate": CLIP, "aggregate": "seq_mean_token_mean", "regularize": {"name": "k3", "coef": 0.5}},
    ),
    "trl use_bias_correction_kl": (
        {"beta": 0.5, "use_bias_correction_kl": True},
        {"gate": CLIP, "aggregate": "seq_mean_token_mean", "regularize": {"name": "k3_unbiased", "coef": 0.5}},
    ),
}


@shows(*LOSSES)
@pytest.mark.parametrize("key", LOSSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_token_losses_agree(key, seed):
    settings, slots = LOSSES[key]
    played = whole(seed)
    theirs = Grpo(played, **settings).loss(played.advantages)
    same(theirs, ours.loss(played, **slots))


SEQUENCE_LOSSES = {
    "trl importance_sampling_level sequence": (
        Grpo,
        {"importance_sampling_level": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.15},
        {
            "ratio": "sequence_geo",
            "gate": {"name": "clip", "low": 0.1, "high": 0.15},
            "aggregate": "seq_mean_token_mean",
        },
    ),
    "trl luspo": (
        Grpo,
        {
            "loss_type": "luspo",
            "importance_sampling_level": "sequence",
            "epsilon_low": 0.1,
            "epsilon_high": 0.15,
        },
        {
            "ratio": "seq_token_sg",
            "gate": {"name": "clip", "low": 0.1, "high": 0.15},
            "aggregate": "seq_mean_token_sum",
        },
    ),
    "trl vespo": (
        Grpo,
        {"loss_type": "vespo"},
        {"ratio": "sequence_product", "gate": {"name": "gamma_kernel"}},
    ),
    "trl gmpo": (
        Gmpo,
        {"epsilon_low": 0.4, "epsilon_high": 0.4},
        {"gate": {"name": "logspace_geo", "bound": 0.4}, "aggregate": "seq_mean_token_mean"},
    ),
}


@shows(*SEQUENCE_LOSSES)
@pytest.mark.parametrize("key", SEQUENCE_LOSSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_sequence_losses_agree(key, seed):
    trainer, settings, slots = SEQUENCE_LOSSES[key]
    played = whole(seed)
    theirs = trainer(played, **settings)
    made = theirs.advantages()
    same(theirs.loss(), ours.loss(played, made, **slots))


@shows("trl rloo loss")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_rloo_loss_agrees(seed):
    """A clipped product of all tokens' ratios. Its rows hold action tokens alone: the trainer knows no others."""
    played = whole(seed, drift=0.08)
    theirs = Rloo(played)
    slots = {"ratio": "sequence_product", "gate": CLIP, "aggregate": "seq_mean_token_mean"}
    mine = ours.loss(played, theirs.advantages() * played.batch.action_mask, **slots)
    same(theirs.loss(), mine)


@shows("trl truncated")
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_masked_trajectory_is_in_trls_means_over_trajectories(loss_type, seed):
    """Theirs divides by all trajectories, ours by those that have loss tokens; a mean over tokens is the same."""
    played = sample(seed, sizes=SIZES, drift=0.4)
    slots = {
        "grpo": {"aggregate": "seq_mean_token_mean"},
        "dr_grpo": {"aggregate": {"name": "seq_sum_const", "length": 40}},
        "dapo": {"aggregate": "token_mean"},
    }[loss_type]
    trainer = Grpo(played, loss_type=loss_type, max_completion_length=40, mask_truncated_completions=True)
    theirs, mine = trainer.loss(played.advantages), ours.loss(played, gate=CLIP, **slots)
    share = (played.rows.mask.sum(1) > 0).double().mean().item()
    assert share < 0.9
    if loss_type == "dapo":
        same(theirs, mine)
    else:
        same(theirs, Loss(mine.value * share, mine.gradient * share))
        differ(theirs, mine)


CORRECTIONS = {
    "trl token_truncate": ({"vllm_importance_sampling_clip_max": 1.5}, {"name": "token_tis", "cap": 1.5}),
    "trl token_mask": (
        {"vllm_importance_sampling_clip_min": 0.7, "vllm_importance_sampling_clip_max": 1.5},
        {"name": "token_mask", "low": 0.7, "high": 1.5},
    ),
    "trl sequence_truncate": ({"vllm_importance_sampling_clip_max": 1.5}, {"name": "sequence_tis", "cap": 1.5}),
    "trl sequence_mask": (
        {"vllm_importance_sampling_clip_max": 1.5},
        {"name": "sequence_mask", "low": 0.0, "high": 1.5},
    ),
}


@shows(*CORRECTIONS)
@pytest.mark.parametrize("key", CORRECTIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_corrections_agree(key, seed):
    settings, mismatch = CORRECTIONS[key]
    played = whole(seed)
    trainer = Grpo(
        played,
        loss_type="dapo",
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode=key.removeprefix("trl "),
        **settings,
    )
    theirs = trainer.loss(played.advantages)
    same(theirs, ours.loss(played, gate=CLIP, mismatch=mismatch))
    differ(theirs, ours.loss(played, gate=CLIP))


@shows("trl get_off_policy_mask")
@pytest.mark.parametrize("seed", SEEDS)
def test_opsm_agrees(seed):
    played = whole(seed)
    played = replace(played, logprobs=played.logprobs - 0.1)
    trainer = Grpo(played, loss_type="dapo", off_policy_mask_threshold=0.1)
    made = trainer.advantages()
    theirs = trainer.loss()
    mine = ours.loss(played, made, gate=CLIP, mismatch={"name": "opsm", "delta": 0.1})
    same(theirs, mine)
    dropped = [np.abs(mine.gradient[played.batch.token_trajectory == i]).max() == 0 for i in range(12)]
    assert 1 <= sum(dropped) < 12


@shows("trl entropy_coef")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_entropy_bonus_agrees_where_the_policy_loss_is_a_mean_over_tokens(seed):
    """Theirs is a mean over tokens beside any loss; ours is weighed as the policy loss is."""
    played = sample(seed, sizes=SIZES)
    bonus = {"_entropy_bonus_enabled": True, "entropy_coef": 0.3, "mask_truncated_completions": True}
    regularize, mask = {"name": "entropy", "coef": 0.3}, played.batch.loss_mask
    for loss_type, aggregate in (("dapo", "token_mean"), ("grpo", "seq_mean_token_mean")):
        theirs = Grpo(played, loss_type=loss_type, **bonus).loss(played.advantages, of_entropies=True)
        slots = {"gate": CLIP, "aggregate": aggregate, "regularize": regularize}
        mine = ours.loss(played, of="entropies", **slots)
        np.testing.assert_allclose(theirs.gradient, -0.3 / mask.sum() * mask, atol=1e-8)
        if loss_type == "dapo":
            assert mine.value == pytest.approx(theirs.value, rel=1e-5)
            np.testing.assert_allclose(mine.gradient, theirs.gradient, atol=1e-8)
        else:
            counts = played.batch.loss_counts
            of_tokens = 0.3 / (np.count_nonzero(counts) * np.maximum(counts, 1))[played.batch.token_trajectory]
            np.testing.assert_allclose(mine.gradient, -of_tokens * mask, atol=1e-8)


@shows("trl use_adaptive_entropy")
def test_the_adaptive_entropy_bonus_agrees_step_by_step():
    """Entropies over, under, under and over the target: the bonus is on or off by the step before."""
    settings = {"entropy_target": 0.5, "entropy_coef_delta": 0.1}
    method = ours.objective(regularize={"name": "adaptive_entropy", "target": 0.5, "step": 0.1, "initial": 0.2})
    state, memory, bonuses = {"entropy_coef": 0.2}, {}, []
    for scale in (1.0, 0.3, 0.2, 0.25, 1.2, 0.9):
        played = whole(0)
        played = replace(played, entropies=played.entropies * scale)
        trainer = Grpo(
            played, loss_type="dapo", _entropy_bonus_enabled=True, use_adaptive_entropy=True, **settings, **state
        )
        theirs = trainer.loss(played.advantages, of_entropies=True)
        mine = ours.loss(
            played, of="entropies", memory=memory, gate=CLIP, regularize=method.spec.as_dict()["regularize"]
        )
        assert mine.value == pytest.approx(theirs.value, rel=1e-5)
        np.testing.assert_allclose(mine.gradient, theirs.gradient, atol=1e-8)
        bonuses.append(-theirs.gradient.sum())
        state = {"entropy_coef": trainer.entropy_coef, "_last_world_entropy": trainer._last_world_entropy}
        credited = method.credit(played.batch, played.scores, memory)
        memory = method.remember(credited, {"entropy": played.entropies[played.batch.loss_mask].mean()})
        assert memory["adaptive_entropy"]["coef"] == pytest.approx(trainer.entropy_coef)
    assert bonuses == pytest.approx([0, 0, 0.2, 0.3, 0.4, 0])
