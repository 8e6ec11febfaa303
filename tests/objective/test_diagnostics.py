"""What a step reports of itself, worked by hand: of what was played, filtered, credited, and of the update."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from agentrl.objective import Scores
from agentrl.objective.metrics import selection_metrics
from agentrl.trajectory import Group, Outcome, Segment, Trajectory
from tests.objective.loss_play import BASE, choice, tokens
from tests.objective.play import KINDS, episode, objective

close = pytest.approx


def played() -> list[Group]:
    """Group a: right with 5 action tokens, wrong with 3, failed with 1. Group b: one with a void turn."""

    def one(turns, outcome=Outcome.TERMINATED, void=False, **parts) -> Trajectory:
        made = episode(turns, outcome=outcome)
        if outcome.failed:
            return made
        ends = [replace(turn, void=void and k == 0) for k, turn in enumerate(made.turns)]
        ends[-1] = replace(ends[-1], rewards=parts)
        return replace(made, turns=tuple(ends), reward=sum(sum(t.rewards.values()) for t in ends))

    right = one([(2, 2, 0.0), (1, 3, 0.0)], correct=1.0, step=0.5)
    wrong = one([(1, 3, 0.0)], Outcome.TRUNCATED_TURNS, correct=0.0, step=0.2)
    failed = one([(1, 1, 0.0)], Outcome.FAILED_TOOL)
    void = one([(1, 1, 0.0), (1, 1, 0.0)], void=True, correct=0.0)
    greedy = one([(1, 4, 0.0)], correct=1.0)
    return [Group("a", "a", (right, wrong, failed), greedy), Group("b", "b", (void,))]


def test_what_was_played():
    got = selection_metrics(played())
    rewards = [1.5, 0.2, 0.0]
    assert got == close(
        {
            "groups": 2,
            "episodes": 4,
            "failed": 1 / 4,
            "sampled_tokens": 5 + 3 + 1 + 2 + 4,
            "greedy_reward": 1,
            "reward": np.mean(rewards),
            "reward_std": np.std(rewards),
            "part/correct": 1 / 3,
            "part/step": 0.7 / 3,
            "success": 1 / 3,
            "truncated": 1 / 3,
            "turns": 5 / 3,
            "tokens": (8 + 4 + 4) / 3,
            "action_tokens": 10 / 3,
            "void_turns": 1 / 5,
            "length/right": 5,
            "length/wrong": 2.5,
            "groups/zero_variance": 0,
            "groups/all_solved": 0,
            "groups/all_failed": 0,
            "groups/std": math.sqrt(1.3**2 / 2),
        }
    )


def test_nothing_played_has_no_means():
    assert selection_metrics([]) == {"groups": 0, "episodes": 0, "failed": 0, "sampled_tokens": 0}
    failed = Group("a", "a", (episode([(1, 1, 0.0)], outcome=Outcome.FAILED_ENV),))
    assert selection_metrics([failed]) == {"groups": 1, "episodes": 1, "failed": 1, "sampled_tokens": 1}


def test_what_filters_left():
    method = objective("dr_grpo", filters=["void_turn_drop", "truncated_mask"])
    metrics = method.select(played()).metrics
    assert (metrics["groups/filtered"], metrics["episodes/filtered"], metrics["episodes/masked"]) == (1, 1, 1)
    assert metrics["episodes"] == 4
    empty = method.select([]).metrics
    assert (empty["groups/filtered"], empty["episodes/filtered"], empty["episodes/masked"]) == (0, 0, 0)
    assert "staleness" not in empty


def with_versions(versions: list[int], seed: int = 0) -> Trajectory:
    made = episode([(1, len(versions), 1.0)], seed=seed)
    stream = made.segments[0]
    return replace(
        made, segments=(Segment(stream.token_ids, stream.action_mask, stream.logprobs, np.array([-1, *versions])),)
    )


def test_staleness_is_in_versions_and_of_action_tokens():
    groups = [Group("g", "t", (with_versions([7, 5]), with_versions([6, 6, 6], 1)))]
    method = objective("dr_grpo")
    metrics = method.select(groups).metrics
    assert (metrics["staleness"], metrics["staleness_max"]) == (close(7 - 6), 2)
    metrics = method.select(groups, version=9).metrics
    assert (metrics["staleness"], metrics["staleness_max"]) == (close(9 - 6), 4)


def two_turns(first: float, second: float, seed: int, lengths=(1, 3), **more) -> Trajectory:
    return episode([(1, lengths[0], first), (1, lengths[1], second)], seed=seed, **more)


def credited(credit, *trajectories, **slots):
    method = objective("reinforce", **{"credit": credit, "baseline": "none", "filters": ["truncated_mask"], **slots})
    return method.credit(method.select([Group("g", "t", trajectories)]), Scores())


def test_the_variance_of_the_advantages_across_turns():
    """Returns from turns on: 3 and 1; 0 and 0. An episode of one turn has no variance, and a cut one is not trained."""
    short = episode([(1, 2, 5.0)], seed=2)
    cut = two_turns(9.0, 0.0, 3, outcome=Outcome.TRUNCATED_TOKENS)
    both = (two_turns(2.0, 1.0, 0), two_turns(0.0, 0.0, 1), short, cut)
    for credit in ("rtg_turn", "rtg_token"):
        assert credited({"name": credit, "gamma": 1.0}, *both).metrics["advantage/turn_variance"] == close((1 + 0) / 2)
    assert credited("outcome_broadcast", *both).metrics["advantage/turn_variance"] == 0
    assert "advantage/turn_variance" not in credited("rtg_turn", short).metrics


def test_the_turns_variance_is_of_means_over_their_loss_tokens():
    """Token returns with gamma .5: .125, then .25, .5, 1, whose mean is 7/12."""
    out = credited({"name": "rtg_token", "gamma": 0.5}, two_turns(0.0, 1.0, 0))
    gap = 7 / 12 - 0.125
    assert out.metrics["advantage/turn_variance"] == close((gap / 2) ** 2)


@pytest.mark.parametrize("credit", [{"name": "rtg_token", "gamma": 1.0}, {"name": "rtg_turn", "gamma": 1.0}])
def test_what_is_trained_on(credit):
    """Advantages 1 at one token and -2 at three; a cut episode counts in the returns alone."""
    cut = two_turns(4.0, 0.0, 1, outcome=Outcome.TRUNCATED_TOKENS)
    zero = two_turns(0.0, 0.0, 2)
    metrics = credited(credit, two_turns(3.0, -2.0, 0), zero, cut).metrics
    assert metrics["tokens/loss"] == 8
    assert metrics["tokens/effective"] == 4
    assert metrics["advantage/abs_mean"] == close((1 + 3 * 2) / 8)
    assert metrics["advantage/positive"] == close(1 / 8)
    assert metrics["return"] == close((1 + 0 + 4) / 3)
    assert metrics["return_std"] == close(np.std([1, 0, 4]))


def test_broadcast_credit_is_counted_by_token():
    metrics = credited("outcome_broadcast", two_turns(3.0, -2.0, 0), two_turns(0.0, -1.0, 1, (1, 1))).metrics
    assert metrics["tokens/effective"] == metrics["tokens/loss"] == 6
    assert metrics["advantage/positive"] == close(4 / 6)
    assert metrics["advantage/abs_mean"] == close(1.0)


def test_returns_are_as_shaped_and_penalised():
    method = objective("reinforce", kl_in_reward={"name": "k1", "beta": 0.5}, shape="threshold")
    batch = method.select([Group("g", "t", (episode([(0, 2, 3.0)]), episode([(0, 1, 0.0)], seed=1)))])
    logprobs = np.array([-1, -1, -1], np.float32)
    metrics = method.credit(batch, Scores(logprobs, logprobs - np.array([0.2, 0.4, 0.6], np.float32))).metrics
    assert metrics["return"] == close((1 - 0.3 + 0 - 0.3) / 2)
    assert metrics["reward/kl_penalty"] == close(0.3)
    assert metrics["reward"] == close(1.5)


def sums_of(inputs, **slots):
    out = objective("reinforce", **{**BASE, "aggregate": "token_mean", **slots}).loss(inputs)
    return {name: value.item() for name, value in out.sums.items()}, out


def test_what_an_update_measures():
    now, old, mu, reference = [-1.0, -2.0], [-1.5, -1.9], [-1.2, -2.5], [-2.0, -1.0]
    inputs = tokens(now, old, [1, -1], behavior_logprobs=mu, reference_logprobs=reference, entropies=[0.5, 0.7])
    sums, out = sums_of(inputs, mismatch=["token_tis"], regularize=[{"name": "k3", "coef": 0.1}])
    ratios, weights = [math.exp(0.5), math.exp(-0.1)], [math.exp(-0.3), math.exp(0.6)]
    kls = {
        "old": [-0.5, 0.1],  # log pi_old - log pi
        "behavior": [0.3, -0.6],  # log mu - log pi_old
        "reference": [1.0, -1.0],  # log pi - log pi_ref
    }
    k3 = {name: sum(math.exp(-d) - 1 + d for d in gaps) for name, gaps in kls.items()}
    assert sums == close(
        {
            "tokens": 2,
            "ratio": sum(ratios),
            "old_abs": 0.6,
            "old_k3": k3["old"],
            "behavior_k1": -0.3,
            "behavior_k3": k3["behavior"],
            "behavior_abs": 0.9,
            "sampler_ratio": sum(weights),
            "sampler_ratio_squared": sum(w**2 for w in weights),
            "reference_k1": 0.0,
            "reference_k3": k3["reference"],
            "entropy": 1.2,
            "correction": sum(weights),
            "policy_loss": -ratios[0] * weights[0] + ratios[1] * weights[1],
            "regularizer": 0.1 * k3["reference"],
            "positive": 1,
            "negative": 1,
            "clipped_positive": 0,
            "clipped_negative": 0,
        }
    )
    assert {k: v.item() for k, v in out.maxima.items()} == close(
        {"ratio": ratios[0], "old_abs": 0.5, "behavior_abs": 0.6}
    )
    assert out.samples["ratio"].tolist() == close(ratios)
    assert not any(x.requires_grad for x in (*out.sums.values(), *out.maxima.values(), *out.samples.values()))


def test_the_effective_sample_size_of_t36():
    old, mu = [-1, -1, -1, -1, -2], [-1, -1.5, -3, -1, -1]
    sums, _ = sums_of(tokens(old, old, [1] * 5, behavior_logprobs=mu))
    raw = np.exp(np.subtract(old, mu))
    assert sums["sampler_ratio"] ** 2 / (5 * sums["sampler_ratio_squared"]) == close(
        raw.sum() ** 2 / (5 * (raw**2).sum())
    )


def test_cut_tokens_are_counted_by_the_sign_of_their_advantage():
    """Log ratios of 1 up and down: a clip cuts what pushes on; a mask cuts what it drops; 0 has no sign."""
    inputs = tokens([-1.0] * 6, [-2, -2, -0.1, -0.1, -1, -2], [1, -1, 1, -1, -1, 0], behavior_logprobs=[-2] * 6)
    sums, _ = sums_of(inputs, gate="clip")
    assert (sums["positive"], sums["negative"]) == (2, 3)
    assert (sums["clipped_positive"], sums["clipped_negative"]) == (1, 1)
    sums, _ = sums_of(inputs, gate="clip", mismatch=[{"name": "token_mask", "low": 0.5, "high": 2.0}])
    assert (sums["clipped_positive"], sums["clipped_negative"]) == (2, 2)
    sums, _ = sums_of(inputs)
    assert (sums["clipped_positive"], sums["clipped_negative"]) == (0, 0)


def test_what_is_absent_is_not_reported():
    plain = replace(tokens([-1.0], [-1.0], [1.0]), entropies=None)
    sums, _ = sums_of(plain)
    absent = {"reference_k1", "reference_k3", "entropy", "correction", "regularizer", "critic_loss"}
    assert not absent & set(sums)


def test_an_empty_micro_batch_reports_zeros():
    inputs = replace(tokens([], [], []), sequence_ids=torch.zeros(0, dtype=torch.int64))
    for ratio in ("token", "sequence_product", "turn"):
        slots = {"ratio": ratio, "aggregate": "seq_mean_token_mean", "mismatch": [choice("mismatch", "opsm")]}
        sums, out = sums_of(inputs, **slots)
        out.loss.backward()
        assert out.loss.item() == 0
        assert not any(sums.values())
        assert out.maxima["ratio"].item() == 0
        assert len(out.samples["ratio"]) == 0


def test_the_two_kinds_of_parts_are_told_apart_in_success_alone():
    assert KINDS == {"correct": "outcome", "step": "process"}
    process = Group("g", "t", (episode([(1, 1, 5.0)], part="step"),))
    got = selection_metrics([process])
    assert (got["success"], got["part/step"], got["length/wrong"]) == (0, 5, 1)
    assert "length/right" not in got
