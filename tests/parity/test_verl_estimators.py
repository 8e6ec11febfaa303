"""Advantages: agentrl's reward side against verl's estimators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agentrl.objective import Scores
from tests.parity import ours
from tests.parity.batches import Sample, sample
from tests.parity.compare import differ, same, shows
from tests.parity.verl_peer import Algorithm, core, estimate

pytestmark = pytest.mark.slow
SEEDS = range(3)
GROUP_STD = {"name": "group_std", "eps": 1e-6}
WHITEN = {"name": "whiten", "level": "token"}
AGREE = {
    "verl grpo": ("grpo", {}, {"baseline": "group_mean", "scale": GROUP_STD}),
    "verl grpo, no std": ("grpo", {"norm_adv_by_std_in_grpo": False}, {"baseline": "group_mean"}),
    "verl grpo_vectorized": ("grpo_vectorized", {}, {"baseline": "group_mean", "scale": GROUP_STD}),
    "verl grpo_passk, no std": (
        "grpo_passk",
        {"config": Algorithm(norm_adv_by_std_in_grpo=False)},
        {"baseline": "second_best"},
    ),
    "verl grpo_passk": (
        "grpo_passk",
        {"config": Algorithm(norm_adv_by_std_in_grpo=True)},
        {"baseline": "second_best", "scale": GROUP_STD},
    ),
    "verl reinforce_plus_plus_baseline": (
        "reinforce_plus_plus_baseline",
        {},
        {"baseline": "group_mean", "scale": WHITEN},
    ),
    "verl rloo": ("rloo", {}, {"baseline": "leave_one_out"}),
    "verl rloo_vectorized": ("rloo_vectorized", {}, {"baseline": "leave_one_out"}),
}


@shows(*AGREE)
@pytest.mark.parametrize("key", AGREE)
@pytest.mark.parametrize("seed", SEEDS)
def test_group_estimators_agree(key, seed):
    name, inputs, slots = AGREE[key]
    played = sample(seed)
    same(estimate(name, played, **inputs), ours.advantages(played, **slots))


@pytest.mark.parametrize("key", AGREE)
def test_they_agree_where_rewards_are_equal_too(key):
    """Ties for the best of a group, and a group in which all are equal."""
    name, inputs, slots = AGREE[key]
    seen = []
    for seed in range(6):
        played = sample(seed, sizes=(4, 3, 2, 2), whole_rewards=True)
        theirs = estimate(name, played, **inputs)
        np.testing.assert_allclose(ours.advantages(played, **slots), theirs, atol=1e-5)
        seen.append(theirs)
    assert np.unique(np.concatenate(seen)).size > 1


@shows("verl reinforce_plus_plus")
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_reinforce_plus_plus_agrees_and_credit_crosses_tool_spans(gamma, seed):
    played = sample(seed)
    theirs = estimate("reinforce_plus_plus", played, config=Algorithm(gamma=gamma))
    slots = {"credit": {"name": "rtg_token", "gamma": gamma}, "baseline": "batch_mean", "scale": WHITEN}
    same(theirs, ours.advantages(played, **slots))


@shows("verl gae")
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.97, 0.9)])
@pytest.mark.parametrize("seed", SEEDS)
def test_gae_agrees(gamma, lam, seed):
    played = sample(seed)
    slots = {
        "credit": {"name": "gae_token", "gamma": gamma, "lam": lam},
        "baseline": "value",
        "scale": WHITEN,
        "critic": {"name": "token_head", "gamma": gamma, "lam": lam},
    }
    values = played.rows.of(played.old_values)
    theirs = estimate("gae", played, values=values, gamma=gamma, lam=lam)
    credited = ours.objective(**slots).credit(played.batch, played.scores)
    same(theirs, credited.advantages.astype(np.float64))
    _, returns = core.compute_gae_advantage_return(played.token_rewards, values, played.rows.actions, gamma, lam)
    asked = played.batch.loss_mask & ~np.isnan(credited.returns)
    assert asked.sum() > 50
    same(played.rows.back(returns)[asked], credited.returns[asked].astype(np.float64))


@shows("verl remax")
@pytest.mark.parametrize("seed", SEEDS)
def test_remax_agrees(seed):
    played = sample(seed, greedy=True)
    greedy = torch.tensor(played.batch.greedy_rewards[played.batch.group_ids])
    theirs = estimate("remax", played, reward_baselines=greedy)
    same(theirs, ours.advantages(played, credit="rtg_token", baseline="greedy"))


@shows("verl opo")
@pytest.mark.parametrize("seed", SEEDS)
def test_opo_agrees(seed):
    played = sample(seed, truncated=False)
    same(estimate("opo", played), ours.advantages(played, baseline="len_weighted"))


@shows("verl opo, masked trajectories")
@pytest.mark.parametrize("seed", SEEDS)
def test_opo_weighs_with_the_tokens_that_were_sampled(seed):
    """Theirs: with the tokens in the loss, so a masked trajectory leaves the baseline. Ours: with all sampled ones."""
    played = sample(seed)
    rewards, groups = torch.tensor(played.batch.rewards), played.batch.group_ids
    per_row = {}
    for name, counts in (("theirs", played.rows.mask.sum(1)), ("ours", played.rows.actions.sum(1))):
        sums = np.bincount(groups, (counts * rewards).numpy()), np.bincount(groups, counts.numpy())
        per_row[name] = (played.batch.rewards - (sums[0] / sums[1])[groups])[played.batch.token_trajectory]
    theirs, mine = estimate("opo", played), ours.advantages(played, baseline="len_weighted")
    same(theirs, per_row["theirs"] * played.batch.loss_mask)
    same(mine, per_row["ours"] * played.batch.loss_mask)
    differ(theirs, mine)


@shows("verl gdpo")
@pytest.mark.parametrize("seed", SEEDS)
def test_gdpo_agrees(seed):
    played = sample(seed)
    rows = played.rows
    names = ["correct", "step"]
    theirs = estimate(
        "gdpo",
        played,
        config=Algorithm(gdpo_reward_keys=names),
        non_tensor_batch={name: played.part_rewards(name) for name in names},
        batch={
            "prompts": torch.zeros(len(rows.flat), 1),
            "attention_mask": torch.cat([torch.ones(len(rows.flat), 1), (rows.flat >= 0)], 1).long(),
        },
    )
    mine = ours.advantages(played, shape={"name": "per_reward_std", "eps": 1e-6}, baseline="group_mean", scale=WHITEN)
    same(theirs, mine)


@shows("verl apply_kl_penalty")
@pytest.mark.parametrize(
    ("name", "inputs", "slots"),
    [
        ("grpo", {}, {"baseline": "group_mean", "scale": GROUP_STD}),
        (
            "reinforce_plus_plus",
            {"config": Algorithm(gamma=0.95)},
            {"credit": {"name": "rtg_token", "gamma": 0.95}, "baseline": "batch_mean", "scale": WHITEN},
        ),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_penalty_in_the_reward_is_in_the_baseline_too(name, inputs, slots, seed):
    played, beta = sample(seed, truncated=False), 0.1
    kl = core.kl_penalty(played.rows.of(played.old), played.rows.of(played.reference), "kl") * played.rows.mask
    theirs = estimate(name, played, rewards=played.token_rewards - beta * kl, **inputs)
    mine = ours.advantages(played, kl_in_reward={"name": "k1", "beta": beta}, **slots)
    same(theirs, mine)
    differ(theirs, ours.advantages(played, **slots))


@shows("verl AdaptiveKLController")
def test_the_adaptive_coefficient_agrees():
    theirs = core.AdaptiveKLController(init_kl_coef=0.2, target_kl=0.1, horizon=100)
    method = ours.objective(kl_in_reward={"name": "adaptive_k1", "initial": 0.2, "target": 0.1, "horizon": 100})
    key, memory, betas = "adaptive_k1", {}, []
    for seed, drift in enumerate((0.0, 0.02, 0.15, 0.3)):
        played = sample(seed, truncated=False)
        scores = played.scores
        scores = Scores(scores.logprobs, (scores.logprobs - np.float32(drift)).astype(np.float32))
        credited = method.credit(played.batch, scores, memory)
        kl = core.kl_penalty(played.rows.of(scores.logprobs), played.rows.of(scores.reference), "kl")
        current = ((kl * played.rows.mask).sum(-1) / played.rows.mask.sum(-1)).mean().item()
        theirs.update(current_kl=current, n_steps=played.batch.n_trajectories)
        memory = method.remember(credited, {})
        betas.append(memory[key]["beta"])
        assert betas[-1] == pytest.approx(theirs.value, rel=1e-5)
    assert len(set(betas)) == 4


@shows("verl AdaptiveKLController, horizon below the batch")
def test_the_adaptive_coefficient_stays_positive_here():
    """Theirs: beta (1 - 0.2 n / horizon), which is negative for n > 5 horizon. Ours: n / horizon is 1 at most."""
    played = sample(0, truncated=False)
    theirs = core.AdaptiveKLController(init_kl_coef=0.2, target_kl=0.1, horizon=1)
    theirs.update(current_kl=0.0, n_steps=played.batch.n_trajectories)
    assert theirs.value == pytest.approx(0.2 * (1 - 0.2 * 14))
    method = ours.objective(kl_in_reward={"name": "adaptive_k1", "initial": 0.2, "target": 0.1, "horizon": 1.0})
    scores = Scores(played.scores.logprobs, played.scores.logprobs)
    memory = method.remember(method.credit(played.batch, scores), {})
    assert memory["adaptive_k1"]["beta"] == pytest.approx(0.2 * 0.8)


def alone(seed: int) -> tuple[Sample, int]:
    """A batch in which one trajectory is alone in its group, and where it stands."""
    return sample(seed, sizes=(4, 3, 1), truncated=False), 7


@shows("verl groups of one")
@pytest.mark.parametrize(
    ("name", "inputs", "slots", "theirs_of"),
    [
        ("grpo", {}, {"baseline": "group_mean", "scale": GROUP_STD}, lambda r: r / (1 + 1e-6)),
        ("grpo", {"norm_adv_by_std_in_grpo": False}, {"baseline": "group_mean"}, lambda r: r),
        ("rloo", {}, {"baseline": "leave_one_out"}, lambda r: r),
        ("rloo_vectorized", {}, {"baseline": "leave_one_out"}, lambda r: 0.0),
        ("opo", {}, {"baseline": "len_weighted"}, lambda r: r),
    ],
)
def test_t6_t8_a_group_of_one(name, inputs, slots, theirs_of):
    played, i = alone(0)
    theirs, mine = estimate(name, played, **inputs), ours.advantages(played, **slots)
    of = played.batch.action_mask & (played.batch.token_trajectory == i)
    assert abs(played.batch.rewards[i]) > 0.1
    assert theirs[of] == pytest.approx(theirs_of(played.batch.rewards[i]), abs=1e-6)
    assert (mine[of] == 0).all()
    same(theirs[~of], mine[~of])


@shows("verl gpg")
@pytest.mark.parametrize("seed", SEEDS)
def test_t15_gpg_counts_scores_that_are_not_0(seed):
    """Theirs: alpha = B / #{R != 0}. Ours, as in the paper: alpha = B / (B - M), M in groups of equal rewards."""
    played = sample(seed, whole_rewards=True, truncated=False)
    rewards = played.batch.rewards
    theirs = estimate("gpg", played)
    mine = ours.advantages(played, baseline="group_mean", scale="nonzero_frac")
    centred = ours.advantages(played, baseline="group_mean")
    mixed = [len({t.reward for t in group.trajectories}) > 1 for group in played.groups]
    varied = sum(len(group.trajectories) for group, m in zip(played.groups, mixed, strict=True) if m)
    same(theirs, centred * len(rewards) / np.count_nonzero(rewards))
    same(mine, centred * len(rewards) / varied)
    assert varied != np.count_nonzero(rewards)
    differ(theirs, mine)


@pytest.mark.parametrize("name", ["grpo", "rloo", "reinforce_plus_plus_baseline"])
def test_a_masked_trajectory_stays_in_their_baselines_as_well(name):
    """What makes the tests above say something about masking: without its reward the others' advantages differ."""
    played = sample(0)
    masked = (played.rows.mask.sum(1) == 0).unsqueeze(1)
    assert masked.sum() >= 2
    differ(estimate(name, played), estimate(name, played, rewards=played.token_rewards.where(~masked, 0.0)))
