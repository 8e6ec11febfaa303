"""Ratios and anchors: worked numbers, and whose gradient they carry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agentrl.objective.trajectory_side.ratio import RATIOS, at_bound, bounded_exp
from tests.objective.loss_play import BASE, draw_step, one_token, policy_gradient, some_groups, tokens, with_component
from tests.objective.play import objective

# Ratios .5, 1 and 10 of the three tokens of one trajectory; the product is 5.
OLD, NEW = [-1.0, -1.0, -3.0], [-1.0 - math.log(2), -1.0, -3.0 + math.log(10)]
close = pytest.approx


def ratio_and_jacobian(name, inputs):
    """[A] the ratio, and [A, A] its derivatives by the log-probs."""
    ratio = RATIOS[name]()(inputs, inputs.old_logprobs)
    rows = [torch.autograd.grad(r, inputs.logprobs, retain_graph=True)[0].tolist() for r in ratio]
    return ratio.tolist(), np.array(rows)


@pytest.mark.parametrize(
    ("name", "values", "jacobian"),
    [
        ("none", NEW, np.eye(3)),
        ("token", [0.5, 1, 10], np.diag([0.5, 1, 10])),
        ("turn", [math.sqrt(0.5)] * 2 + [10], [[0.353553, 0.353553, 0], [0.353553, 0.353553, 0], [0, 0, 10]]),
        ("sequence_geo", [1.709976] * 3, np.full((3, 3), 0.569992)),
        ("sequence_product", [5] * 3, np.full((3, 3), 5)),
        ("seq_token_sg", [1.709976] * 3, np.diag([1.709976] * 3)),
    ],
)
def test_each_ratio_and_its_gradient(name, values, jacobian):
    inputs = tokens(NEW, OLD, [1, 1, 1], turn_ids=[0, 0, 1])
    got, derivatives = ratio_and_jacobian(name, inputs)
    assert got == close(values, abs=1e-6)
    assert derivatives == close(np.asarray(jacobian, float), abs=1e-6)


def test_every_ratio_has_its_worked_number():
    marks = test_each_ratio_and_its_gradient.pytestmark[0].args[1]
    assert [name for name, *_ in marks] == list(RATIOS)


@pytest.mark.parametrize(("advantages", "wanted"), [([1.0] * 3, -1.709976), ([-1.0] * 3, 1.709976)])
def test_gspo_and_gspo_token_agree_where_the_advantage_is_constant(advantages, wanted):
    for ratio in ("sequence_geo", "seq_token_sg"):
        inputs = tokens(NEW, OLD, advantages, weights=[1 / 3] * 3)
        out = objective("reinforce", **{**BASE, "ratio": ratio}).loss(inputs)
        out.loss.backward()
        assert out.loss.item() == close(wanted, abs=1e-6)
        assert inputs.logprobs.grad.tolist() == close([wanted / 3] * 3, abs=1e-6)


def test_gspo_clips_the_whole_trajectory():
    method = objective("reinforce", **{**BASE, "ratio": "sequence_geo", "gate": {"name": "clip", "high": 0.2}})
    inputs = tokens(NEW, OLD, [1, 1, 1], weights=[1 / 3] * 3)
    out = method.loss(inputs)
    out.loss.backward()
    assert out.loss.item() == close(-1.2)
    assert inputs.logprobs.grad.tolist() == [0, 0, 0]
    assert out.sums["clipped_positive"].item() == 3


def test_gspo_token_gives_each_token_its_own_advantage():
    inputs = tokens(NEW, OLD, [1, -1, -4], weights=[1 / 3] * 3)
    out = objective("reinforce", **{**BASE, "credit": "rtg_turn", "ratio": "seq_token_sg"}).loss(inputs)
    out.loss.backward()
    assert out.loss.item() == close(2.279968, abs=1e-5)
    assert inputs.logprobs.grad.tolist() == close([-0.569992, 0.569992, 2.279968], abs=1e-5)


def test_t48_a_geometric_mean_is_moved_little_by_one_token():
    logs = [0.0] * 99 + [math.log(5)]
    inputs = tokens(logs, [0.0] * 100, [1.0] * 100)
    ratio = RATIOS["sequence_geo"]()(inputs, inputs.old_logprobs)
    assert ratio[0].item() == close(1.01622, abs=1e-5)
    assert np.exp(logs).mean() == close(1.04)


def test_a_ratio_is_of_its_own_trajectory_and_turn():
    more = {"sequence_ids": [0, 1, 0, 1], "turn_ids": [0, 0, 1, 0]}
    inputs = tokens(np.log([2, 3, 8, 27]).tolist(), [0.0] * 4, [1.0] * 4, **more)
    wanted = {"turn": [2, 9, 8, 9], "sequence_geo": [4, 9, 4, 9], "sequence_product": [16, 81, 16, 81]}
    for name, values in wanted.items():
        assert RATIOS[name]()(inputs, inputs.old_logprobs).tolist() == close(values)


def test_tokens_of_weight_0_are_in_no_mean():
    inputs = tokens(np.log([2, 8, 1e4]).tolist(), [0.0] * 3, [1.0] * 3, weights=[1, 1, 0]).trained()
    for name, value in (("sequence_geo", 4), ("sequence_product", 16), ("turn", 4)):
        assert RATIOS[name]()(inputs, inputs.old_logprobs).tolist() == close([value] * 2)


@pytest.mark.parametrize("name", RATIOS)
def test_enormous_log_ratios_are_bounded_and_pass_no_gradient(name):
    for gap in (1e4, -1e4):
        inputs = one_token(min(gap, 0.0), -max(gap, 0.0), 1.0)
        ratio = RATIOS[name]()(inputs, inputs.old_logprobs)
        ratio.sum().backward()
        if name == "none":
            assert inputs.logprobs.grad.item() == 1
            assert not at_bound(ratio).any()
        else:
            assert ratio.item() == close(math.exp(math.copysign(20, gap)))
            assert inputs.logprobs.grad.item() == 0
            assert at_bound(ratio).all()


def test_a_log_prob_is_never_taken_for_a_ratio_at_its_bound():
    assert not at_bound(torch.tensor([0.0, -1e-12, -1.0, -1e4])).any()
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([25.0, 20.0, 19.999, -19.999, -20.0, -25.0], dtype=dtype)
        assert at_bound(bounded_exp(x)).tolist() == [True, True, False, False, True, True]


def test_the_anchor_is_what_the_ratio_compares_with():
    inputs = one_token(-1.0, -2.0, 1.0, behavior_logprobs=[-1.5])
    for anchor, gap in (("old", 1.0), ("behavior", 0.5)):
        method = objective("reinforce", **{**BASE, "anchor": anchor})
        assert method.loss(inputs).loss.item() == close(-math.exp(gap))
        assert method.spec.anchor.of_sampler == (anchor == "behavior")


@pytest.mark.parametrize("ratio", ["token", "turn", "sequence_geo", "seq_token_sg"])
def test_at_ratio_1_the_gradient_is_that_of_reinforce(ratio):
    method = with_component("ratio", ratio)
    step = draw_step(method, some_groups(0), 0, gap=0.0)
    plain = with_component("ratio", "none")
    if method.spec.ratio.of_sequence:
        assert policy_gradient(method, step) == close(policy_gradient(plain, step), abs=1e-12)
    else:
        assert np.abs(policy_gradient(plain, step)).max() > 0.01
        wanted = policy_gradient(plain, step)
        if ratio == "turn":  # a turn's tokens share the mean of their advantages
            wanted = turn_means(step, wanted)
        assert policy_gradient(method, step) == close(wanted, abs=1e-12)


def turn_means(step, x):
    out = np.zeros_like(x)
    for start, length in zip(step.batch.turn_starts, step.batch.turn_lengths, strict=True):
        out[start : start + length] = x[start : start + length].mean() if length else 0
    return out


def test_at_ratio_1_the_product_has_the_gradient_of_the_whole_trajectory():
    """The mean over tokens of r A is r A once; its gradient is A at every token, not A / len."""
    method, plain = with_component("ratio", "sequence_product"), with_component("ratio", "none")
    step = draw_step(method, some_groups(0), 0, gap=0.0)
    lengths = step.batch.action_counts[step.batch.token_trajectory]
    wanted = policy_gradient(plain, step) * lengths
    assert policy_gradient(method, step) == close(wanted, abs=1e-12)
