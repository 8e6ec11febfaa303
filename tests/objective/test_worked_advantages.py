"""Numbers of shapes, penalties, baselines and scales, worked by hand or by running the public libraries.

Each test names the case it restates.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from agentrl.objective import Scores
from agentrl.trajectory import Group
from tests.objective.play import episode, groups_of, objective, per_trajectory

MIXED = ([1, 0, 0, 0], [1, 1, 1, 0], [0.5])
close = pytest.approx


def given(groups, scores=None, memory=None, **slots):
    """The advantages of an objective with these slots."""
    method = objective("reinforce", **{"credit": "outcome_broadcast", "baseline": "none", **slots})
    return method.credit(method.select(groups), scores or Scores(), memory)


def of_rewards(*rewards, **slots) -> list[float]:
    return per_trajectory(given(groups_of(*rewards), **slots))


def in_parts(*rewards, **more) -> Group:
    """One-turn episodes with these named reward parts."""
    made = [episode([(1, 1, 0.0)], seed=i) for i in range(len(rewards))]
    return Group(
        "g",
        "t",
        tuple(
            dataclasses.replace(
                t,
                turns=(dataclasses.replace(t.turns[0], rewards=parts),),
                reward=sum(parts.values()),
                reward_kinds=dict.fromkeys(parts, "outcome"),
            )
            for t, parts in zip(made, rewards, strict=True)
        ),
    )


def scored(batch, reference=None, teacher=None, logprobs=None):
    """Scores that stand at the action tokens, in order."""

    def spread(values):
        out = np.zeros(batch.n_tokens, np.float32)
        out[batch.action_mask] = values
        return out

    count = int(batch.action_mask.sum())
    return Scores(
        logprobs=spread([-1.0] * count if logprobs is None else logprobs),
        reference=None if reference is None else spread(reference),
        teacher=None if teacher is None else spread(teacher),
    )


def test_t1_whitened_over_tokens():
    groups = [Group("g", "t", (episode([(2, 4, 2.0)]),))]
    batch = objective("reinforce").select(groups)
    scores = scored(batch, reference=-1.0 - np.array([0.03, 0.02, 0.04, 0.01]))
    got = given(groups, scores, credit="rtg_token", kl_in_reward={"name": "k1", "beta": 1.0}, scale="whiten")
    assert got.advantages[batch.action_mask].tolist() == close([-1.12585, -0.331134, 0.198678, 1.2583], abs=1e-4)


def test_t5_adaptive_kl():
    kl = {"name": "adaptive_k1", "initial": 0.2, "target": 0.1, "horizon": 100.0}
    method = objective("reinforce", kl_in_reward=kl)
    groups = groups_of([0.0] * 10, length=2)
    batch = method.select(groups)
    scores = scored(batch, reference=[-1.3, -1.1] * 10)  # mean k1 0.2
    memory = method.remember(method.credit(batch, scores), {})
    assert memory["adaptive_k1"] == {"beta": close(0.204)}


def test_t11_maxrl():
    slots = {"baseline": "group_mean", "scale": "group_mean"}
    assert of_rewards([1, 0, 0, 0], **slots) == close([3, -1, -1, -1])
    assert of_rewards([0, 0, 0], [1, 1, 1], **slots) == [0] * 6
    assert of_rewards([1, 1, 1, 0], **slots) == close([1 / 3] * 3 + [-1])
    assert of_rewards([6, 3], [9, 12], **slots) == close([1 / 3, -1 / 3, -1 / 7, 1 / 7])


def test_t12_pass_at_k():
    assert of_rewards([1, 0, 0, 0], baseline="second_best") == [1, 0, 0, 0]
    assert of_rewards([1, 1, 1, 0], baseline="second_best") == [0, 0, 0, 0]


def test_t13_opo():
    lengths, rewards = [3, 1, 2, 1], [1, 0, 1, 0]
    played = [episode([(1, n, r)], seed=i) for i, (n, r) in enumerate(zip(lengths, rewards, strict=True))]
    got = per_trajectory(given([Group("g", "t", tuple(played))], baseline="len_weighted"))
    assert got == close([0.285714, -0.714286, 0.285714, -0.714286], abs=1e-6)


def test_t14_remax():
    group = dataclasses.replace(groups_of([1, 0])[0], greedy=episode([(1, 5, 1.0)]))
    assert per_trajectory(given([group], baseline="greedy")) == [0, -1]


def test_t15_gpg_counts_trajectories_of_mixed_groups():
    """alpha is 9/8 as in the paper; verl's, from nonzero scores, is 9/5: [1.35, -.45, ..., .9]."""
    wanted = [9 / 8 * a for a in (0.75, -0.25, -0.25, -0.25, 0.25, 0.25, 0.25, -0.75, 0)]
    assert of_rewards(*MIXED, baseline="group_mean", scale="nonzero_frac") == close(wanted)


def test_t17_gdpo():
    parts = [{"accuracy": a, "format": f} for a, f in ((1, 1), (0, 1), (1, 0), (0, 0))]
    slots = {"shape": "per_reward_std", "baseline": "group_mean"}
    got = per_trajectory(given([in_parts(*parts)], **slots, scale={"name": "whiten", "level": "sequence", "eps": 1e-4}))
    assert got == close([1.22466, 0, 0, -1.22466], abs=1e-5)
    z = 0.5 / (3**-0.5 + 1e-4)
    assert per_trajectory(given([in_parts(*parts)], **slots)) == close([2 * z, 0, 0, -2 * z], abs=1e-6)


def test_t18_spo():
    method = objective("reinforce", credit="outcome_broadcast", baseline="beta_tracker")
    batch = method.select(groups_of([1]))
    seen = {"beta_tracker": {"task:a": 0.5, "task:b": 0.5, "task:seen": 1.0, "drift": 1.03}}
    credited = method.credit(batch, Scores(), seen)
    assert per_trajectory(credited) == [0.5]
    memory = method.remember(credited, {})  # 2^(-.03/.06) = .7071, clipped to .875
    assert memory["beta_tracker"] == close({"task:a": 1.4375, "task:b": 0.4375, "task:seen": 1.03, "drift": 1.03})
    assert per_trajectory(method.credit(batch, Scores(), memory)) == close([1 - 0.766667], abs=1e-6)


@pytest.mark.parametrize(("length", "penalty"), [(50, 0), (80, 0), (85, -0.25), (90, -0.5), (100, -1), (110, -1)])
def test_t41_overlong(length, penalty):
    shape = {"name": "overlong_soft", "max_length": 100, "cache": 20}
    cut = episode([(30, length - 10, 0.5), (40, 10, 0.0)])
    assert per_trajectory(given([Group("g", "t", (cut,))], shape=shape)) == close([0.5 + penalty])


def test_t46_distillation_in_the_reward():
    groups = [Group("g", "t", (episode([(2, 3, 0.0)]),))]
    batch = objective("reinforce").select(groups)
    scores = scored(batch, teacher=[-0.5, -2, -0.1], logprobs=[-0.7, -0.5, -0.1])
    each = given(groups, scores, kl_in_reward="teacher", credit={"name": "rtg_token", "gamma": 0.0})
    assert each.advantages[batch.action_mask].tolist() == close([0.2, -1.5, 0], abs=1e-6)
    assert each.metrics["reward/kl_penalty"] / 3 == close(0.433333, abs=1e-6)
    to_go = given(groups, scores, kl_in_reward="teacher", credit="rtg_token")
    assert to_go.advantages[batch.action_mask].tolist() == close([-1.3, -1.5, 0], abs=1e-6)
