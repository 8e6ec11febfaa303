"""Penalties beside the policy loss: worked numbers, gradients, and what adaptive ones remember."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.objective.memory import Finished
from agentrl.objective.trajectory_side.regularize import REGULARIZERS, k3
from agentrl.trajectory import Group
from tests.objective.loss_play import BASE, PARAMETERS, cast, choice, one_token, tokens
from tests.objective.play import episode, groups_of, objective

close = pytest.approx


def penalised(inputs, **regularizer):
    """What the penalty adds at each token, and its gradient."""
    made = objective("reinforce", **{**BASE, "regularize": [regularizer]}).spec.regularize[0]
    penalty = made(inputs)
    (gradient,) = torch.autograd.grad(penalty.sum(), inputs.logprobs, retain_graph=True)
    return penalty.tolist(), gradient.tolist()


@pytest.mark.parametrize(
    ("name", "value", "gradient"),
    [
        ("k1", 0.1, 1.0),
        ("k2", 0.005, 0.1),
        ("k3", 0.00483739, 0.09516),
        ("k3_plus", 0.00483739, 0.1),
        ("k3_unbiased", 0.00483739, 0.1),
    ],
)
def test_t3_estimates_of_the_kl(name, value, gradient):
    logp, reference = [0.2, 0.3, 0.5], [0.1, 0.2, 0.4]
    inputs = tokens(logp, logp, [0, 0, 0], reference_logprobs=reference)
    got, gradients = penalised(inputs, name=name, coef=1.0)
    assert got == close([value] * 3, abs=1e-7)
    assert gradients == close([gradient] * 3, abs=1e-5)
    assert np.array(got) * 0.3 == close(np.array(penalised(inputs, name=name, coef=0.3)[0]))


@pytest.mark.parametrize(
    ("name", "values", "gradients"),
    [
        ("k1", [0.5, -1], [1, 1]),
        ("k2", [0.125, 0.5], [0.5, -1]),
        ("k3", [0.10653, 0.71828], [0.39347, -1.71828]),
        ("k3_plus", [0.10653, 0.71828], [0.5, -1]),
        ("k3_unbiased", [0.10653, 0.71828], [0.5, -1]),
    ],
)
def test_t4_estimates_of_the_kl(name, values, gradients):
    inputs = tokens([-1, -2], [-1, -2], [0, 0], reference_logprobs=[-1.5, -1])
    got, gradient = penalised(inputs, name=name, coef=1.0)
    assert got == close(values, abs=1e-5)
    assert gradient == close(gradients, abs=1e-5)


def test_unbiased_k3_weighs_with_the_ratio_to_the_anchor():
    """r k3 and its gradient r d, at r = 2 to the old policy and 4 to the sampler."""
    inputs = tokens([-1.0], [-1 - math.log(2)], [0], behavior_logprobs=[-1 - math.log(4)], reference_logprobs=[-1.5])
    assert penalised(inputs, name="k3_unbiased", coef=1.0) == (close([2 * 0.10653066]), close([2 * 0.5]))
    sampler = replace(inputs, anchor_logprobs=inputs.behavior_logprobs)
    assert penalised(sampler, name="k3_unbiased", coef=1.0) == (close([4 * 0.10653066]), close([4 * 0.5]))
    method = objective(
        "reinforce", **{**BASE, "anchor": "behavior", "regularize": {"name": "k3_unbiased", "coef": 1.0}}
    )
    assert method.loss(inputs).loss.item() == close(4 * 0.10653066)


@pytest.mark.parametrize("name", ["k2", "k3_plus", "k3_unbiased"])
def test_on_policy_these_have_the_gradient_of_the_kl(name):
    """Expectation over a distribution of three tokens against autograd of the exact KL; k3 has that of KL(ref, pi)."""
    logits = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-0.4, 0.2, 0.6], dtype=torch.float64).log_softmax(0)

    def expected(chosen):
        out = torch.zeros(3, dtype=torch.float64)
        for token in range(3):
            logprobs = logits.log_softmax(0)
            inputs = replace(
                one_token(0, 0, 0),
                logprobs=logprobs[token : token + 1],
                old_logprobs=logprobs[token : token + 1].detach(),
                reference_logprobs=reference[token : token + 1],
            )
            penalty = REGULARIZERS[chosen](coef=1.0)(inputs)
            out += logprobs[token].exp().item() * torch.autograd.grad(penalty.sum(), logits)[0]
        return out.tolist()

    now = logits.log_softmax(0)
    reverse = torch.autograd.grad((now.exp() * (now - reference)).sum(), logits, retain_graph=True)[0].tolist()
    forward = torch.autograd.grad((reference.exp() * (reference - now)).sum(), logits)[0].tolist()
    assert expected(name) == close(reverse)
    assert expected("k3") == close(forward)
    assert expected("k3") != close(reverse, abs=1e-3)
    assert expected("k1") == close([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("name", ["k1", "k2", "k3", "k3_unbiased", "k3_plus"])
def test_without_a_coefficient_no_reference_is_needed(name):
    off = REGULARIZERS[name]()
    assert not off.needs_reference
    assert off(one_token(-1, -1, 1)) is None
    on = REGULARIZERS[name](coef=0.1)
    assert on.needs_reference
    with pytest.raises(ConfigError, match=f"regularize '{name}' needs log-probs of a reference"):
        on(one_token(-1, -1, 1))


def test_k3_is_bounded_on_the_side_where_exp_overflows_alone():
    d = torch.tensor([1e4, 25.0, -19.0, -25.0, -1e4], dtype=torch.float64, requires_grad=True)
    value = k3(d)
    value.sum().backward()
    assert value.tolist() == close([1e4 - 1, 24, math.exp(19) - 20, math.exp(20) - 21, math.exp(20) - 21])
    assert d.grad.tolist() == close([1, 1, 1 - math.exp(19), 0, 0])


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_enormous_log_ratios_stay_finite(name, dtype):
    made = REGULARIZERS[name](**PARAMETERS[("regularize", name)])
    columns = {"kl_cov": torch.ones(1), "positive_nll": torch.ones(1)}
    memory = {"adaptive_entropy": {"coef": 0.5, "entropy": 0.1}}
    for low, high in ((-1e4, 0.0), (0.0, -1e4)):
        inputs = tokens([low], [high], [1.0], reference_logprobs=[high], columns=columns, memory=memory)
        inputs = cast(replace(inputs, entropies=torch.ones(1, requires_grad=True)), dtype)
        penalty = made(inputs)
        penalty.sum().backward()
        assert torch.isfinite(penalty).all()
        assert inputs.logprobs.grad is None or torch.isfinite(inputs.logprobs.grad).all()


def test_the_entropy_bonus():
    entropies = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    inputs = replace(tokens([-1, -1], [-1, -1], [0, 0]), entropies=entropies)
    penalty = REGULARIZERS["entropy"](coef=0.1)(inputs)
    penalty.sum().backward()
    assert penalty.tolist() == close([-0.05, -0.2])
    assert entropies.grad.tolist() == close([-0.1, -0.1])
    assert REGULARIZERS["entropy"](coef=0.0)(inputs) is None
    method = objective("reinforce", **{**BASE, "regularize": {"name": "entropy", "coef": 0.1}})
    assert method.spec.needs_entropy
    with pytest.raises(ConfigError, match="regularize 'entropy' needs entropies"):
        method.loss(replace(inputs, entropies=None))


def finished(method, memory, **metrics):
    batch = method.select(groups_of([1, 0]))
    return Finished(batch, Scores(), batch.rewards, memory, metrics)


def test_the_adaptive_bonus_keeps_the_entropy_at_its_target():
    """Entropies .1, .15, .25, .1 nats; target .2; steps of .005 from .01."""
    made = REGULARIZERS["adaptive_entropy"](target=0.2, step=0.005, initial=0.01)
    method = objective("reinforce", **BASE)
    inputs = tokens([-1], [-1], [0], entropies=[0.4])
    memory, coefficients, penalties = {}, [], []
    for entropy in (0.1, 0.15, 0.25, 0.1):
        penalty = made(replace(inputs, memory=memory))
        penalties.append(0.0 if penalty is None else penalty.item())
        memory = {"adaptive_entropy": made.remember(finished(method, memory, entropy=entropy))}
        coefficients.append(memory["adaptive_entropy"]["coef"])
    assert coefficients == close([0.015, 0.02, 0.015, 0.02])
    assert penalties == close([0, -0.006, -0.008, 0])


def test_the_adaptive_coefficient_stays_in_its_bounds_and_is_kept_without_an_update():
    made = REGULARIZERS["adaptive_entropy"](target=0.2, step=0.4)
    method = objective("reinforce", **BASE)
    memory = {}
    for entropy, wanted in ((0.3, 0), (0.2, 0.4), (0.1, 0.8), (0.1, 1.0), (0.3, 0.6)):
        memory = {made.key: made.remember(finished(method, memory, entropy=entropy))}
        assert memory[made.key]["coef"] == close(wanted)
    assert made.remember(finished(method, memory)) == memory[made.key]


def test_the_objective_carries_the_adaptive_coefficient_from_step_to_step():
    method = objective("reinforce", **{**BASE, "regularize": {"name": "adaptive_entropy", "target": 0.2}})
    credited = method.credit(method.select(groups_of([1, 0])), Scores())
    memory = method.remember(credited, {"entropy": 0.1})
    assert memory == {"adaptive_entropy": {"coef": 0.005, "entropy": 0.1}}
    again = method.credit(method.select(groups_of([1, 0])), Scores(), memory)
    assert method.remember(again, {"entropy": 0.1})["adaptive_entropy"]["coef"] == close(0.01)


def test_kl_cov_pulls_chosen_tokens_towards_the_anchor():
    inputs = tokens([-1.0, -1.0, -1.0], [-1.5, -0.7, -1.5], [0] * 3, columns={"kl_cov": torch.tensor([1.0, 1, 0])})
    assert penalised(inputs, name="kl_cov", coef=2.0) == (close([1.0, 0.6, 0]), close([2, -2, 0]))
    sampler = replace(inputs, anchor_logprobs=inputs.old_logprobs + 0.25)
    assert penalised(sampler, name="kl_cov", coef=1.0)[0] == close([0.25, 0.55, 0])


def test_positive_nll_imitates_right_trajectories():
    method = objective("reinforce", **{**BASE, "regularize": {"name": "positive_nll", "coef": 0.1}})
    cut = episode([(1, 2, 1.0)], seed=3)
    process = episode([(1, 2, 5.0)], seed=4, part="step")
    batch = method.select([Group("g", "t", (*groups_of([1, 0], length=2)[0].trajectories, cut, process))])
    right = method.spec.regularize[0].columns(batch, Scores(), np.zeros(batch.n_tokens))["positive_nll"]
    assert right[batch.loss_mask].tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert not right[~batch.loss_mask].any()
    inputs = tokens([-1.0, -3.0], [-1, -3], [0, 0], columns={"positive_nll": torch.tensor([1.0, 0.0])})
    assert penalised(inputs, name="positive_nll", coef=0.1) == (close([0.1, 0]), close([-0.1, 0]))


def test_behavior_k2_needs_no_reference():
    inputs = tokens([-1.0, -3.0], [-1, -3], [0, 0], behavior_logprobs=[-1.5, -2.0])
    assert penalised(inputs, name="behavior_k2", coef=0.1) == (close([0.025, 0.1]), close([0.1, -0.2]))
    assert not REGULARIZERS["behavior_k2"](coef=0.1).needs_reference


def test_penalties_add_up_and_are_reported():
    both = [choice("regularize", "k2"), choice("regularize", "behavior_k2")]
    method = objective("reinforce", **{**BASE, "regularize": both})
    inputs = tokens([-1.0], [-1.0], [3.0], behavior_logprobs=[-2.0], reference_logprobs=[-1.5])
    out = method.loss(inputs)
    assert out.sums["regularizer"].item() == close(0.5 * 0.125 + 0.5 * 1.0)
    assert out.sums["policy_loss"].item() == close(-3.0)
    assert out.loss.item() == close(-3.0 + 0.5625)
    assert not out.sums["regularizer"].requires_grad


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"name": "k1", "coef": -1.0}, "coef must be at least 0"),
        ({"name": "entropy"}, "needs the parameter 'coef'"),
        ({"name": "entropy", "coef": -0.1}, "coef must be at least 0"),
        ({"name": "adaptive_entropy"}, "needs the parameter 'target'"),
        ({"name": "adaptive_entropy", "target": 0.2, "initial": 2.0}, r"initial must be in \[0, 1\]"),
        ({"name": "kl_cov", "share": 2.0}, r"share must be in \[0, 1\]"),
        ({"name": "positive_nll", "coef": -1.0}, "coef must be at least 0"),
        ({"name": "behavior_k2"}, "needs the parameter 'coef'"),
    ],
)
def test_parameters_out_of_range_are_refused(choice, says):
    with pytest.raises(ConfigError, match=says):
        objective("reinforce", **{**BASE, "regularize": [choice]})
