"""Whole steps: presets as they stand, from rewards to the gradient, against the trainer or functions they restate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.parity import ours
from tests.parity.batches import sample
from tests.parity.compare import differ, same, shows
from tests.parity.ours import Loss
from tests.parity.trl_peer import Gmpo, Grpo, whole
from tests.parity.verl_peer import Algorithm, core, estimate, policy_loss

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("double")]
SEEDS = range(3)
TRL_EPS = {"scale": {"eps": 1e-4}}
SAMPLER = {"use_vllm": True, "vllm_importance_sampling_correction": True}


def sampler(mode: str, high: float, low: float | None = None) -> dict[str, object]:
    bounds = {"vllm_importance_sampling_clip_min": low, "vllm_importance_sampling_clip_max": high}
    return {"epsilon_high": 0.2, "vllm_importance_sampling_mode": mode, **SAMPLER, **bounds}


TRL = {
    "grpo": ({"epsilon_high": 0.2}, TRL_EPS),
    "dr_grpo": (
        {"epsilon_high": 0.2, "loss_type": "dr_grpo", "scale_rewards": "none", "max_completion_length": 1024},
        {},
    ),
    "dapo": ({"loss_type": "dapo"}, TRL_EPS),
    "gspo": ({"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}, TRL_EPS),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 5.0}, TRL_EPS),
    "sapo": ({"loss_type": "sapo"}, TRL_EPS),
    "two_sided": ({"epsilon_high": 0.2, "delta": 4.0}, TRL_EPS),
    "lite_ppo": ({"epsilon_high": 0.2, "loss_type": "bnpo", "scale_rewards": "batch"}, TRL_EPS),
    "gmpo": ({"epsilon_low": 0.4, "epsilon_high": 0.4}, TRL_EPS),
    "grpo_tis": (sampler("token_truncate", 2.0), TRL_EPS),
    "grpo_seq_tis": (sampler("sequence_truncate", 2.0), TRL_EPS),
    "grpo_icepop": (sampler("token_mask", 5.0, low=0.5), TRL_EPS),
    "grpo_mis": (sampler("sequence_mask", 3.0), TRL_EPS),
    "deepseek_v32": (
        {
            "epsilon_high": 0.2,
            "scale_rewards": "none",
            "off_policy_mask_threshold": 0.5,
            "use_bias_correction_kl": True,
            "beta": 0.04,
        },
        {"regularize": {"coef": 0.04}},
    ),
}


@shows(*(f"trl preset {name}" for name in TRL))
@pytest.mark.parametrize("preset", TRL)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_of_trl_is_a_step_of_the_preset(preset, seed):
    settings, overrides = TRL[preset]
    played = whole(seed)
    if preset == "deepseek_v32":  # some trajectories of negative advantage have drifted past the threshold
        played = replace(played, logprobs=played.logprobs - 0.4)
    trainer = (Gmpo if preset == "gmpo" else Grpo)(played, **settings)
    theirs = trainer.loss()
    same(theirs, ours.step(played, preset, **overrides))
    if preset in ("grpo_icepop", "grpo_mis"):
        assert (theirs.gradient[played.batch.loss_mask] == 0).any()
    if preset == "deepseek_v32":
        differ(theirs, ours.step(played, preset, **overrides, mismatch="none"))


UNCAPPED = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 1e6}
VERL = {
    "reinforce_pp": ("reinforce_plus_plus", {"config": Algorithm(gamma=1.0)}, "vanilla", "token-mean"),
    "reinforce_pp_baseline": ("reinforce_plus_plus_baseline", {}, "vanilla", "token-mean"),
    "remax": ("remax", {}, "gpg", "seq-mean-token-sum"),
    "opo": ("opo", {}, "gpg", "token-mean"),
    "passk": ("grpo_passk", {"config": Algorithm(norm_adv_by_std_in_grpo=False)}, "vanilla", "token-mean"),
}


@shows(*(f"verl preset {name}" for name in VERL))
@pytest.mark.parametrize("preset", VERL)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_of_verl_is_a_step_of_the_preset(preset, seed):
    name, inputs, loss, aggregate = VERL[preset]
    played = sample(seed, truncated=False, greedy=True)
    if name == "remax":
        inputs = {"reward_baselines": torch.tensor(played.batch.greedy_rewards[played.batch.group_ids])}
    made = estimate(name, played, **inputs)
    same(policy_loss(loss, played, made, aggregate=aggregate, **UNCAPPED), ours.step(played, preset))


@shows("verl preset ppo")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_of_verls_ppo_is_a_step_of_the_preset(seed):
    played = sample(seed, truncated=False)
    rows, values = played.rows, played.rows.of(played.old_values)
    made = estimate("gae", played, values=values, gamma=1.0, lam=0.95)
    _, returns = core.compute_gae_advantage_return(played.token_rewards, values, rows.mask, 1.0, 0.95)
    of_values, _ = core.compute_value_loss(rows.of(played.values), returns, values, rows.mask, cliprange_value=0.2)
    theirs = policy_loss("vanilla", played, made, **UNCAPPED)
    same(Loss(theirs.value + 0.1 * of_values.item(), theirs.gradient), ours.step(played, "ppo"))
