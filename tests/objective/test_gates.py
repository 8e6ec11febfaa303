"""Gates: worked numbers, where the gradient stops, and that `cut` says so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agentrl.errors import ConfigError
from agentrl.objective.trajectory_side.gate import GATES
from agentrl.objective.trajectory_side.ratio import RATIOS
from tests.objective.loss_play import BASE, cast, one_token, tokens, with_component
from tests.objective.play import objective

# Ratios .5, 1 and 10.
ADVANTAGES, OLD, NEW = [1.0, -1.0, -4.0], [-1.0, -1.0, -3.0], [-1.69315, -1.0, -0.69741]
close = pytest.approx


def mean_loss(gate, advantages=ADVANTAGES, new=NEW, old=OLD, **slots):
    """Loss and gradient of these tokens' mean."""
    method = objective("reinforce", **{**BASE, "aggregate": "token_mean", "gate": gate, **slots})
    inputs = tokens(new, old, advantages, weights=[1 / len(new)] * len(new))
    out = method.loss(inputs)
    out.loss.backward()
    return out.loss.item(), inputs.logprobs.grad.tolist(), out


def test_t27_dual_clip():
    loss, gradient, out = mean_loss({"name": "dual_clip", "cap": 3.0})
    assert loss == close(12.5 / 3, abs=1e-6)
    assert gradient == close([-0.166666, 0.333333, 0], abs=1e-5)
    assert out.sums["clipped_negative"].item() == 1
    assert out.sums["clipped_positive"].item() == 0
    loss, gradient, _ = mean_loss("clip")
    assert loss == close(13.500064, abs=1e-5)
    assert gradient == close([-0.166666, 0.333333, 40 / 3], abs=1e-3)


def test_two_sided_is_dual_clip_by_another_name():
    dual = mean_loss({"name": "dual_clip", "cap": 4.0})
    assert mean_loss({"name": "two_sided", "delta": 4.0})[:2] == dual[:2]
    assert dual[0] == close((-0.5 + 1 + 16) / 3, abs=1e-5)
    with pytest.raises(ConfigError, match=r"delta must be at least 1\.2"):
        mean_loss({"name": "two_sided", "delta": 1.1})


def test_a_dual_clip_below_the_upper_bound_still_holds_negative_advantages():
    """R1 clips at 1 + 10; the cap is for A < 0 alone."""
    gate = {"name": "dual_clip", "low": 0.2, "high": 10.0, "cap": 3.0}
    loss, gradient, _ = mean_loss(gate, advantages=[-1.0, 1.0], new=[math.log(5)] * 2, old=[0.0, 0.0])
    assert loss == close((3 - 5) / 2)
    assert gradient == close([0, -2.5])


@pytest.mark.parametrize("name", ["dual_clip", "two_sided"])
def test_there_is_no_gradient_at_the_cap_itself(name):
    cap = {"dual_clip": {"cap": 3.0}, "two_sided": {"delta": 3.0}}[name]
    ratio = torch.tensor([3.0, 3.0 - 1e-9], dtype=torch.float64, requires_grad=True)
    gated = GATES[name](**cap)(tokens([0, 0], [0, 0], [-1, -1]), ratio)
    gated.loss.sum().backward()
    assert gated.loss.tolist() == close([3, 3])
    assert ratio.grad.tolist() == [0, 1]
    assert gated.cut.tolist() == [True, False]


def test_t28_cispo():
    loss, gradient, out = mean_loss({"name": "detached_clip", "floor": 0.8, "cap": 1.2})
    assert loss == close(-2.9930 / 3, abs=1e-4)
    assert loss == close(-0.997683, abs=1e-6)
    assert gradient == close([-0.266667, 0.333333, 1.6], abs=1e-6)
    assert out.sums["clipped_negative"].item() == out.sums["clipped_positive"].item() == 0


def test_cispo_has_an_absolute_cap_and_no_floor_by_default():
    loss, gradient, _ = mean_loss("detached_clip")
    assert loss == close((0.5 * 1.69315 - 1 + 5 * 4 * -0.69741) / 3, abs=1e-5)
    assert gradient == close([-0.5 / 3, 1 / 3, 20 / 3], abs=1e-5)


def test_t31_sapo():
    loss, gradient, _ = mean_loss({"name": "sigmoid", "tau_positive": 1.0, "tau_negative": 1.05})
    assert loss == close(5.210499, abs=1e-6)
    assert gradient == close([-0.156669, 0.333333, 0.004196], abs=1e-5)
    gate = {"name": "sigmoid", "tau_positive": 1.0, "tau_negative": 2.0}
    loss, _, _ = mean_loss(gate, advantages=[1, -1, 0.5], new=[-0.5, 0.2, -0.1], old=[0, 0, 0])
    assert loss * 3 == close(-1.346129, abs=1e-6)


@pytest.mark.parametrize("tau", [0.3, 1.0, 1.05, 7.0])
def test_the_slope_of_sapo_at_1_is_1(tau):
    for advantage in (2.0, -2.0):
        ratio = torch.ones(1, dtype=torch.float64, requires_grad=True)
        GATES["sigmoid"](tau, tau)(one_token(0, 0, advantage), ratio).loss.backward()
        assert ratio.grad.item() == close(-advantage)


def test_t33_dppo():
    """verl's form: the truncated ratio has no gradient, and the loss is worth its weight times log pi."""
    gate = {"name": "prob_mask", "low": 0.2, "high": 0.2, "cap": 3.0}
    loss, gradient, _ = mean_loss(gate)
    assert loss == close(-2.840782, abs=1e-6)
    assert gradient == close([-0.166666, 0.333333, 4.0], abs=1e-5)


def test_dppo_looks_at_the_change_of_probability_not_at_the_ratio():
    """.01 -> .2 is 20 times, and stays; .5 -> .71 is not."""
    new, old = [math.log(p) for p in (0.2, 0.71, 0.71, 0.29, 0.29)], [math.log(p) for p in (0.01, 0.5, 0.5, 0.5, 0.5)]
    advantages = [1.0, 1, -1, -1, 1]
    loss, gradient, out = mean_loss("prob_mask", advantages, new, old)
    assert gradient == close([-20 / 5, 0, 1.42 / 5, 0, -0.58 / 5])
    assert loss == close(sum(g * n for g, n in zip(gradient, new, strict=True)))
    assert (out.sums["clipped_positive"].item(), out.sums["clipped_negative"].item()) == (1, 1)


def test_dppo_compares_with_the_anchor():
    method = objective("reinforce", **{**BASE, "gate": "prob_mask", "anchor": "behavior"})
    inputs = one_token(math.log(0.5), math.log(0.1), 1.0, behavior_logprobs=[math.log(0.4)])
    out = method.loss(inputs)
    out.loss.backward()
    assert inputs.logprobs.grad.item() == close(-1.25)
    assert objective("reinforce", **{**BASE, "gate": "prob_mask"}).loss(inputs).loss.item() == 0


def test_gmpo_clips_each_token_then_takes_the_geometric_mean():
    slots = {"aggregate": "seq_mean_token_mean"}
    loss, gradient, _ = mean_loss({"name": "logspace_geo", "bound": 0.4}, [1.0] * 3, **slots)
    assert loss == close(-0.906907, abs=1e-5)
    assert gradient == close([-0.302302, -0.302302, 0], abs=1e-5)
    loss, gradient, _ = mean_loss({"name": "logspace_geo", "bound": 0.4}, [-1.0] * 3, **slots)
    assert loss == close(1.885504, abs=1e-4)
    assert gradient == close([0, 0.628501, 0.628501], abs=1e-4)


def test_cpgd():
    loss, gradient, _ = mean_loss({"name": "log_clip", "low": 0.2, "high": 0.2})
    assert loss == close((0.693147 + 0 + 9.210340) / 3, abs=1e-4)
    assert gradient == close([-1 / 3, 1 / 3, 4 / 3], abs=1e-6)
    _, gradient, _ = mean_loss("log_clip", [1.0, -1.0], [0.2, -0.3], [0.0, 0.0])
    assert gradient == [0, 0]


def test_kimi_pmd():
    """(A - tau log r)^2, log r = log 5 of the trajectory."""
    slots = {"ratio": "sequence_product", "aggregate": "seq_mean_token_mean"}
    loss, gradient, _ = mean_loss({"name": "l2_logratio", "tau": 0.5}, [1.0] * 3, **slots)
    assert loss == close((1 - 0.5 * math.log(5)) ** 2, abs=1e-4)
    assert gradient == close([-(1 - 0.5 * math.log(5))] * 3, abs=1e-4)


def test_t40_vespo():
    w = math.exp(0.3)
    for advantage, phi in ((1.0, 0.637898), (-1.0, 1.221748)):
        inputs = tokens([-0.5, -1.5], [-0.6, -1.7], [advantage] * 2)
        out = objective("reinforce", **{**BASE, "ratio": "sequence_product", "gate": "gamma_kernel"}).loss(inputs)
        out.loss.backward()
        assert out.loss.item() == close(-phi * advantage * -2.0, abs=1e-5)
        assert inputs.logprobs.grad.tolist() == close([-phi * advantage] * 2, abs=1e-6)
    assert GATES["gamma_kernel"]()(one_token(-1, -1, 1), torch.tensor([w])).loss.item() == close(0.637898, abs=1e-6)


@pytest.mark.parametrize(
    ("advantage", "log_ratio", "weight"),
    [(1.0, -0.5, 1), (0.0, -0.5, 1), (2.0, 0.5, 1), (-1.0, -0.5, 0.606531), (-1.0, 0.5, 1)],
)
def test_t42_topr(advantage, log_ratio, weight):
    ratio = torch.tensor([math.exp(log_ratio)])
    inputs = one_token(-2.0, -2.0, advantage)
    loss = GATES["positive_free"]()(inputs, ratio).loss
    loss.backward()
    assert loss.item() == close(weight * advantage * 2.0, abs=1e-5)
    assert inputs.logprobs.grad.item() == close(-weight * advantage, abs=1e-6)


def test_gates_of_the_form_w_log_pi_have_no_gradient_through_the_ratio():
    detaching = [name for name, cls in GATES.items() if cls.detaches]
    assert detaching == ["detached_clip", "prob_mask", "positive_free", "gamma_kernel"]
    for name in detaching:
        ratio = torch.tensor([0.9, 1.1], dtype=torch.float64, requires_grad=True)
        inputs = tokens([-1, -1], [-1, -1], [1, -1])
        GATES[name]()(inputs, ratio).loss.sum().backward()
        assert ratio.grad is None
        assert (inputs.logprobs.grad != 0).all()


def sound_pairs():
    """(gate, ratio) of all that go together."""
    for gate in GATES:
        for ratio in RATIOS:
            try:
                with_component("gate", gate, ratio=ratio)
            except ConfigError:
                continue
            yield gate, ratio


LOG_RATIOS = [0.0, 0.01, -0.01, 0.15, -0.15, 0.3, -0.3, 1.2, -1.2, 2.5, -2.5, 19.0, -19.0, 21.0, -21.0, 1e4, -1e4]


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cut_is_true_exactly_where_no_policy_gradient_passes(name, dtype):
    """One trajectory a token, over all sizes of ratio; finite everywhere."""
    method = with_component("gate", name)
    for log_ratio in LOG_RATIOS:
        for advantage in (1.3, -0.7):
            new, old = min(log_ratio, 0.0) - 0.2, -max(log_ratio, 0.0) - 0.2
            inputs = cast(one_token(new, old, advantage, columns={"clip_cov": torch.zeros(1)}), dtype)
            gated, gradient = gate_of(method, inputs)
            assert torch.isfinite(gated.loss).all()
            assert torch.isfinite(gradient).all()
            assert gated.cut.tolist() == (gradient == 0).tolist(), (log_ratio, advantage, gradient)


@pytest.mark.parametrize(("name", "ratio"), list(sound_pairs()))
def test_cut_is_exact_for_every_ratio_and_within_a_trajectory(name, ratio):
    n, seen = 60, 0
    method = with_component("gate", name, ratio=ratio)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        old = rng.normal(-3, 0.5, n)
        inputs = tokens(
            np.minimum(old + rng.normal(0, 0.6, n), -1e-3).tolist(),
            old.tolist(),
            np.repeat(rng.normal(0, 1, n // 4), 4).tolist(),
            sequence_ids=np.repeat(np.arange(n // 4), 4).tolist(),
            turn_ids=np.tile([0, 0, 1, 1], n // 4).tolist(),
            columns={"clip_cov": torch.from_numpy((rng.random(n) < 0.2).astype(float))},
        )
        gated, gradient = gate_of(method, inputs)
        assert gated.cut.tolist() == (gradient == 0).tolist()
        seen += int(gated.cut.sum())
    cuts = name in ("clip", "dual_clip", "two_sided", "logspace_geo", "prob_mask", "log_clip", "clip_cov")
    assert (seen > 0) == cuts


def gate_of(method, inputs):
    """What the gate makes of the inputs, and the gradient of the policy loss by log-prob."""
    spec = method.spec
    gated = spec.gate(inputs, spec.ratio(inputs, spec.anchor(inputs)))
    (gradient,) = torch.autograd.grad(gated.loss.sum(), inputs.logprobs)
    return gated, gradient


def test_a_drawn_token_has_no_loss():
    inputs = tokens([-1, -1], [-1, -1], [1, 1], columns={"clip_cov": torch.tensor([1.0, 0.0])})
    out = objective("reinforce", **{**BASE, "gate": "clip_cov"}).loss(inputs)
    out.loss.backward()
    assert out.loss.item() == -1
    assert inputs.logprobs.grad.tolist() == [0, -1]
    assert out.sums["clipped_positive"].item() == 1


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ({"name": "dual_clip", "cap": 0.5}, "cap must be at least 1"),
        ({"name": "detached_clip", "floor": 6.0}, r"floor must be in \[0, 5\]"),
        ({"name": "detached_clip", "cap": 0.0}, "cap must be at least"),
        ({"name": "sigmoid", "tau_negative": 0.0}, "tau_negative must be at least"),
        ({"name": "logspace_geo", "bound": 0.0}, "bound must be at least"),
        ({"name": "prob_mask", "high": 1.5}, r"high must be in \[0, 1\]"),
        ({"name": "positive_free", "cap": 0.0}, "cap must be at least"),
        ({"name": "l2_logratio"}, "needs the parameter 'tau'"),
        ({"name": "l2_logratio", "tau": 0.0}, "tau must be at least"),
        ({"name": "log_clip", "low": 1.0}, "low must be in"),
        ({"name": "gamma_kernel", "k_positive": -1.0}, "k_positive must be at least 0"),
        ({"name": "clip_cov", "cov_low": 6.0}, "cov_high must be at least 6"),
        ({"name": "clip_cov", "share": 1.5}, r"share must be in \[0, 1\]"),
    ],
)
def test_parameters_out_of_range_are_refused(gate, says):
    with pytest.raises(ConfigError, match=says):
        objective("reinforce", **{**BASE, "ratio": "token", "gate": gate})
