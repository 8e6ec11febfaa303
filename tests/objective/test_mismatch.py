"""Corrections for tokens that the current policy did not sample: worked numbers, bands, and that they are constants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agentrl.errors import ConfigError
from agentrl.objective.trajectory_side.mismatch import MISMATCHES
from tests.objective.loss_play import BASE, COMPONENTS, cast, choice, draw_step, inputs_of, some_groups, tokens
from tests.objective.play import objective

# Trajectories of three tokens and of two; log ratios 0, .5, 2 and 0, -1.
OLD, MU = [-1.0, -1, -1, -1, -2], [-1.0, -1.5, -3, -1, -1]
SEQUENCES = [0, 0, 0, 1, 1]
close = pytest.approx


def example(**more):
    return tokens(OLD, OLD, [1.0] * 5, **{"behavior_logprobs": MU, "sequence_ids": SEQUENCES, **more})


def factors(name, **parameters):
    return MISMATCHES[name](**parameters)(example()).tolist()


def mean_loss(*mismatch):
    out = objective("reinforce", **{**BASE, "aggregate": "token_mean", "mismatch": list(mismatch)}).loss(
        example(weights=[0.2] * 5)
    )
    return out.loss.item()


def test_t36_token_tis():
    assert factors("token_tis", cap=2.0) == close([1, 1.648721, 2, 1, 0.367879], abs=1e-6)


def test_t36_sequence_tis():
    assert factors("sequence_tis", cap=2.0) == close([2, 2, 2, 0.367879, 0.367879], abs=1e-6)
    assert factors("sequence_tis", cap=20.0)[0] == close(math.exp(2.5))


def test_t36_effective_sample_size():
    weights = np.array(factors("token_tis", cap=2.0))
    assert weights.sum() ** 2 / (5 * (weights**2).sum()) == close(0.81773, abs=1e-5)


def test_t37_a_two_sided_truncation():
    assert mean_loss({"name": "token_tis", "floor": 0.5, "cap": 2.0}) == close(-1.229744, abs=1e-6)


def test_t37_icepop():
    assert mean_loss({"name": "token_mask", "low": 0.5, "high": 2.0}) == close(-0.729744, abs=1e-6)


def test_t37_a_geometric_mask_beside_a_weight():
    """exp(2.5 / 3) is out of the band, exp(-.5) inside; what stays has its tokens' weights."""
    mask = {"name": "geometric_mask", "low": 0.5, "high": 2.0}
    assert mean_loss({"name": "token_tis", "cap": 2.0}, mask) == close(-0.273576, abs=1e-6)
    assert mean_loss(mask) == close(-0.4)


def test_t39_bands_are_on_the_learners_probability_over_the_samplers():
    """verl's `token_k1` of "0.5_5.0" keeps .3 and 1 of these, its statistic being the inverse."""
    ratios = [3, 0.3, 1, 6, 0.15]
    inputs = tokens(np.log(ratios).tolist(), np.log(ratios).tolist(), [1.0] * 5, behavior_logprobs=[0.0] * 5)
    assert MISMATCHES["token_mask"](low=0.5, high=5.0)(inputs).tolist() == close([3, 0, 1, 0, 0])
    inverse = MISMATCHES["token_mask"](low=0.2, high=2.0)(inputs).tolist()
    assert inverse == close([0, 0.3, 1, 0, 0])


def test_t40_opsm():
    """Three trajectories; A 1, -1, -1; mean log(mu / pi) 1, 1, .05."""
    logprobs, mu = [-2.0, -2, -2, -2, -2, -2], [-0.5, -1.5, -1.5, -0.5, -1.9, -2.0]
    inputs = tokens(logprobs, logprobs, [1, 1, -1, -1, -1, -1], behavior_logprobs=mu, sequence_ids=[0, 0, 1, 1, 2, 2])
    assert MISMATCHES["opsm"](delta=0.5)(inputs).tolist() == [1, 1, 0, 0, 1, 1]
    assert MISMATCHES["opsm"](delta=1.0)(inputs).tolist() == [1] * 6
    assert MISMATCHES["opsm"](delta=0.04)(inputs).tolist() == [1, 1, 0, 0, 0, 0]
    neutral = tokens([-2.0], [-2.0], [0.0], behavior_logprobs=[-0.5])
    assert MISMATCHES["opsm"](delta=0.5)(neutral).tolist() == [1]


def test_opsm_sees_the_policys_drift_since_the_step_began():
    """The log-probs at the step's start are the sampler's, so all of the gap is the updates'."""
    inputs = tokens([-3.0, -2.0], [-1.0, -1.0], [-1, -1])
    assert MISMATCHES["opsm"](delta=1.4)(inputs).tolist() == [0, 0]
    assert MISMATCHES["opsm"](delta=1.6)(inputs).tolist() == [1, 1]
    likelier = tokens([-1.0, -1.0], [-3.0, -2.0], [-1, -1])
    assert MISMATCHES["opsm"](delta=0.0)(likelier).tolist() == [1, 1]


def test_sequence_mask_keeps_the_product_as_a_weight():
    assert factors("sequence_mask") == close([0, 0, 0, 0.367879, 0.367879], abs=1e-6)
    assert factors("sequence_mask", high=13.0) == close([math.exp(2.5)] * 3 + [math.exp(-1)] * 2)
    assert factors("sequence_mask", low=0.4, high=13.0)[3:] == [0, 0]


def test_the_geometric_mask_weighs_nothing():
    assert factors("geometric_mask", low=0.5, high=2.4) == [1, 1, 1, 1, 1]
    assert factors("geometric_mask", low=0.7, high=2.4) == [1, 1, 1, 0, 0]
    assert factors("geometric_mask") == [0] * 5


def test_bands_hold_their_ends():
    inputs = tokens([0.0, 0.0], [0.0, math.log(2)], [1, 1], behavior_logprobs=[0.0, 0.0], sequence_ids=[0, 1])
    for name in ("token_mask", "sequence_mask", "geometric_mask"):
        kept = MISMATCHES[name](low=1.0, high=math.exp(math.log(2)))(inputs)
        assert (kept > 0).tolist() == [True, True]


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_correction_is_a_constant_and_a_mask_is_told(name):
    """Its gradient is that of the policy loss times the factor, and nothing flows into the factor."""
    method = objective("reinforce", **{**BASE, "mismatch": [choice("mismatch", name)]})
    plain = objective("reinforce", **BASE)
    step = draw_step(method, some_groups(0), 3)
    inputs, leaf = inputs_of(method, step), torch.tensor(step.now, requires_grad=True)
    factor = method.spec.mismatch[0](inputs)
    assert not factor.requires_grad
    out = method.loss(inputs_of(method, step, now=leaf))
    (gradient,) = torch.autograd.grad(out.loss, leaf)
    other = torch.tensor(step.now, requires_grad=True)
    (without,) = torch.autograd.grad(plain.loss(inputs_of(plain, step, now=other)).loss, other)
    mask = step.batch.loss_mask
    assert gradient.numpy()[mask] == close(without.numpy()[mask] * factor.numpy())
    dropped = (factor == 0) & (inputs.advantages != 0)
    assert (out.sums["clipped_positive"] + out.sums["clipped_negative"]).item() == dropped.sum()
    assert out.sums["correction"].item() == close(factor.sum().item())


@pytest.mark.parametrize("name", MISMATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_enormous_gaps_stay_finite(name, dtype):
    inputs = tokens([-1e4, 0.0], [-1e4, 0.0], [1, -1], behavior_logprobs=[0.0, -1e4], sequence_ids=[0, 1])
    factor = MISMATCHES[name]()(cast(inputs, dtype))
    assert factor.dtype is dtype
    assert torch.isfinite(factor).all()
    assert (factor >= 0).all()


def test_which_corrections_weigh():
    """A mask without weights may stand beside one that weighs, and beside the sampler as the anchor."""
    weighs = {name for name, cls in MISMATCHES.items() if cls.corrects_sampler}
    assert weighs == {"token_tis", "sequence_tis", "token_mask", "sequence_mask"}
    for name in MISMATCHES:
        slots = {**BASE, "anchor": "behavior", "mismatch": [choice("mismatch", name)]}
        if name in weighs:
            with pytest.raises(ConfigError, match="count the sampler twice"):
                objective("reinforce", **slots)
        else:
            objective("reinforce", **slots)
    assert [name for slot, name in COMPONENTS if slot == "mismatch"] == list(MISMATCHES)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"name": "token_tis", "cap": 0.5}, "cap must be at least 1"),
        ({"name": "token_tis", "floor": 1.5}, r"floor must be in \[0, 1\]"),
        ({"name": "sequence_tis", "cap": 0.5}, "cap must be at least 1"),
        ({"name": "token_mask", "low": 1.5}, r"low must be in \[0, 1\]"),
        ({"name": "sequence_mask", "high": 0.5}, "high must be at least 1"),
        ({"name": "geometric_mask", "low": -0.1}, r"low must be in \[0, 1\]"),
        ({"name": "opsm", "delta": -1.0}, "delta must be at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(choice, says):
    with pytest.raises(ConfigError, match=says):
        objective("reinforce", **{**BASE, "mismatch": [choice]})
