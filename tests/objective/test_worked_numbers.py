"""Numbers worked by hand or by running the public libraries; each test names the case it restates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agentrl.objective import Scores
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, token_rewards
from agentrl.objective.reward_side.scan import discounted_suffix_sums
from agentrl.objective.trajectory_side.mismatch import TokenTis
from agentrl.objective.trajectory_side.regularize import k3
from agentrl.trajectory import Group, Outcome
from tests.objective.play import episode, groups_of, objective, per_trajectory, tokens_loss

GROUPS = ([1, 0, 0, 0], [1, 1, 1, 0], [0.5])
close = pytest.approx


def t1(gamma: float, turns=((2, 4, 2.0),)):
    """Score 2, KL .03 .02 .04 .01, beta 1."""
    method = objective("reinforce", kl_in_reward={"name": "k1", "beta": 1.0}, credit={"gamma": gamma}, baseline="none")
    batch = method.select([Group("g", "t", (episode(turns),))])
    logprobs = np.full(batch.n_tokens, -1.0, np.float32)
    reference = logprobs.copy()
    reference[batch.action_mask] -= np.array([0.03, 0.02, 0.04, 0.01], np.float32)
    return method, batch, Scores(logprobs, reference)


def test_t1_kl_in_reward_gives_token_rewards():
    method, batch, scores = t1(1.0)
    penalty = method.spec.kl_in_reward[0](RewardInputs(batch, scores, {}))
    rewards = Rewards(batch.turn_rewards, penalty)
    assert token_rewards(batch, rewards).tolist() == close([-0.03, -0.02, -0.04, 1.99], abs=1e-6)


@pytest.mark.parametrize(("gamma", "returns"), [(1.0, [1.90, 1.93, 1.95, 1.99]), (0.9, [1.37031, 1.5559, 1.751, 1.99])])
def test_t1_returns_end_to_end(gamma, returns):
    method, batch, scores = t1(gamma)
    credited = method.credit(batch, scores)
    assert credited.advantages[batch.action_mask].tolist() == close(returns, abs=1e-5)
    assert credited.advantages[~batch.action_mask].tolist() == [0, 0]
    assert credited.metrics["reward/kl_penalty"] == close(0.1, abs=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_t1_is_the_same_with_an_observation_in_the_middle(gamma):
    whole, batch, scores = t1(gamma)
    cut, cut_batch, cut_scores = t1(gamma, turns=((2, 1, 0.0), (5, 3, 2.0)))
    a = whole.credit(batch, scores).advantages[batch.action_mask]
    b = cut.credit(cut_batch, cut_scores).advantages[cut_batch.action_mask]
    assert a.tolist() == close(b.tolist())


def test_t2_discounted_returns():
    assert discounted_suffix_sums(np.array([1.0, 2, 3]), np.array([3]), 0.5).tolist() == [2.75, 3.5, 3]


def test_t21_returns_skip_observations():
    batch_of = objective("reinforce", baseline="none", credit={"gamma": 1.0})
    batch = batch_of.select([Group("g", "t", (episode([(0, 1, 1.0), (1, 1, 3.0)]),))])
    assert batch_of.credit(batch, Scores()).advantages.tolist() == [4, 0, 3]


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_t23_credit_crosses_a_tool_span(gamma):
    method = objective("reinforce", baseline="none", credit={"gamma": gamma})
    batch = method.select([Group("g", "t", (episode([(0, 2, 0.0), (2, 2, 1.0)]),))])
    wanted = [gamma**3, gamma**2, 0, 0, gamma, 1]
    assert method.credit(batch, Scores()).advantages.tolist() == close(wanted)


def test_t24_turns_without_reward_are_turns():
    method = objective("reinforce", baseline="none", credit={"name": "rtg_turn", "gamma": 0.5})
    batch = method.select([Group("g", "t", (episode([(1, 2, 1.0), (1, 1, 0.0), (0, 2, 4.0), (1, 1, 0.0)]),))])
    assert method.credit(batch, Scores()).advantages.tolist() == [0, 2, 2, 0, 2, 4, 4, 0, 0]


def test_t3_k1_k2_k3():
    d = torch.tensor([0.1, 0.1, 0.1], dtype=torch.float64)
    logp, ref = [0.2, 0.3, 0.5], [0.1, 0.2, 0.4]
    assert k3(d).tolist() == close([0.00483739] * 3, abs=1e-7)
    for name, value, gradient in (("k2", 0.005, 0.1), ("k3", 0.00483739, 0.09516)):
        inputs = tokens_loss(logp, logp, [0] * 3, reference=ref, weights=[1] * 3)
        out = objective("grpo", regularize={"name": name, "coef": 1.0}).loss(inputs)
        out.loss.backward()
        assert out.sums["regularizer"].item() / 3 == close(value, abs=1e-7)
        assert out.sums["reference_k1"].item() / 3 == close(0.1)
        assert inputs.logprobs.grad.tolist() == close([gradient] * 3, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "values", "gradients"),
    [("k2", [0.125, 0.5], [0.5, -1]), ("k3", [0.10653, 0.71828], [0.39347, -1.71828])],
)
def test_t4_regularizers_and_their_gradients(name, values, gradients):
    for token in range(2):
        inputs = tokens_loss([-1, -2], [-1, -2], [0, 0], reference=[-1.5, -1], weights=np.eye(2)[token].tolist())
        out = objective("grpo", regularize={"name": name, "coef": 1.0}).loss(inputs)
        out.loss.backward()
        assert out.loss.item() == close(values[token], abs=1e-5)
        assert inputs.logprobs.grad[token].item() == close(gradients[token], abs=1e-5)


def credit_groups(preset: str, *rewards, **overrides) -> list[float]:
    method = objective(preset, **overrides)
    return per_trajectory(method.credit(method.select(groups_of(*rewards)), Scores()))


def test_t6_grpo_and_a_singleton_gets_0():
    wanted = [1.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -1.5, 0]
    assert credit_groups("grpo", *GROUPS) == close(wanted, abs=1e-4)
    with_trl_eps = credit_groups("grpo", *GROUPS, scale={"name": "group_std", "eps": 1e-4})
    assert with_trl_eps[:2] == close([1.4997, -0.4999], abs=1e-5)


def test_t7_without_std():
    wanted = [0.75, -0.25, -0.25, -0.25, 0.25, 0.25, 0.25, -0.75, 0]
    assert credit_groups("dr_grpo", *GROUPS) == close(wanted)


def test_t8_rloo_and_a_singleton_gets_0():
    third = 1 / 3
    assert credit_groups("rloo", *GROUPS) == close([1, -third, -third, -third, third, third, third, -1, 0])


def test_t9_rloo_groups_of_two():
    assert credit_groups("rloo", [6, 3], [9, 12], [1]) == close([3, -3, -3, 3, 0])


def test_batch_mean_and_batch_std_count_each_trajectory_once():
    rewards = [1, 0, 0, 0, 1, 1, 1, 0, 0.5]
    mean, std = np.mean(rewards), np.std(rewards, ddof=1)
    wanted = [(r - mean) / (std + 1e-6) for r in rewards]
    assert credit_groups("reinforce", *GROUPS, credit="outcome_broadcast", scale="batch_std") == close(wanted)


@pytest.mark.parametrize(
    ("low", "high", "loss", "positive", "negative"), [(0.2, 0.2, 0.033333, 2, 2), (0.2, 0.28, 0.011667, 1, 2)]
)
def test_t32_clip_higher(low, high, loss, positive, negative):
    ratios = [1.25, 1.3, 0.5, 0.7, 0.75, 1.5]
    inputs = tokens_loss([math.log(r) for r in ratios], [0] * 6, [1, 1, 1, -1, -1, -1])
    out = objective("grpo", gate={"name": "clip", "low": low, "high": high}).loss(inputs)
    out.loss.backward()
    assert out.loss.item() == close(loss, abs=1e-6)
    assert (out.sums["clipped_positive"].item(), out.sums["clipped_negative"].item()) == (positive, negative)
    assert out.sums["tokens"].item() == 6
    assert out.sums["ratio"].item() == close(6.0)
    assert out.maxima["ratio"].item() == close(1.5)
    passes = [high > 0.25, False, True, False, False, True]
    assert [g != 0 for g in inputs.logprobs.grad.tolist()] == passes


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        ("token_mean", 4 / 3),
        ("seq_mean_token_sum", 4),
        ("seq_mean_token_mean", 1.5),
        ({"name": "seq_sum_const", "length": 4}, 1),
    ],
)
@pytest.mark.parametrize("masked_row", [False, True])
def test_t34_aggregation(aggregate, value, masked_row):
    method = objective("reinforce", aggregate=aggregate, filters=["truncated_mask"])
    played = [episode([(1, 4, 0)]), episode([(3, 2, 0)], new_segment_at=[0])]
    if masked_row:
        played.insert(1, episode([(2, 5, 0)], outcome=Outcome.TRUNCATED_TOKENS))
    batch = method.select([Group("g", "t", tuple(played))])
    losses = np.where(batch.token_trajectory == 0, 1.0, 2.0)
    assert (method.token_weights(batch) * losses).sum() == close(value)


def test_t36_token_tis_and_its_effective_sample_size():
    old, mu = [-1, -1, -1, -1, -2], [-1, -1.5, -3, -1, -1]
    inputs = tokens_loss(old, old, [1] * 5, behavior=mu, sequence_ids=[0, 0, 0, 1, 1])
    weights = TokenTis(cap=2.0)(inputs)
    assert weights.tolist() == close([1, 1.648721, 2, 1, 0.367879], abs=1e-6)
    assert (weights.sum() ** 2 / (5 * (weights**2).sum())).item() == close(0.81773, abs=1e-5)
    out = objective("grpo", mismatch={"name": "token_tis", "cap": 2.0}).loss(inputs)
    assert out.loss.item() == close(-weights.mean().item())
    raw = [math.exp(o - m) for o, m in zip(old, mu, strict=True)]
    assert out.sums["sampler_ratio"].item() == close(sum(raw))
    assert out.sums["sampler_ratio_squared"].item() == close(sum(r * r for r in raw))
    assert out.sums["behavior_k1"].item() == close(sum(mu) - sum(old))
    assert out.sums["behavior_k3"].item() == close(sum(r - 1 - math.log(r) for r in raw))
    assert out.maxima["behavior_abs"].item() == 2
