"""The loss under autograd, in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agentrl.objective import LossInputs, Scores, preset_names
from tests.objective.play import groups_of, loss_inputs, objective, tokens_loss

OVERRIDES = {"grpo": {"regularize": {"coef": 0.1}}}
EXTRAS = [
    ("grpo", {"mismatch": "token_tis", "regularize": {"name": "k2", "coef": 0.1}}),
    ("grpo", {"ratio": "sequence_product"}),
    ("grpo", {"gate": "none"}),
]


def example(method, *, gap: float, seed: int = 0) -> tuple[LossInputs, torch.Tensor]:
    """Inputs of eight episodes, and the log-probs [N] that carry the gradient; `gap` is how far they moved from old."""
    batch = method.select(groups_of([1, 0, 0.5, 0], [1, 1, 0, 0.25]))
    rng = np.random.default_rng(seed)
    old = rng.normal(-1, 0.3, batch.n_tokens)
    logprobs = torch.tensor(old + rng.normal(0, gap, batch.n_tokens), requires_grad=True)
    credited = method.credit(batch, Scores())
    reference = old + rng.normal(0, 0.2, batch.n_tokens)
    weights = method.token_weights(batch)
    return loss_inputs(batch, credited.advantages, weights, logprobs, old, reference=reference), logprobs


@pytest.mark.parametrize(("preset", "overrides"), [*((p, OVERRIDES.get(p, {})) for p in preset_names()), *EXTRAS])
@pytest.mark.parametrize("gap", [0.01, 0.4])
def test_gradcheck(preset, overrides, gap):
    method = objective(preset, **overrides)
    inputs, _ = example(method, gap=gap)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return method.loss(dataclasses.replace(inputs, logprobs=x)).loss

    assert torch.autograd.gradcheck(loss, inputs.logprobs.detach().clone().requires_grad_(), eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("ratio", ["token", "sequence_product"])
def test_at_ratio_1_the_gradient_is_that_of_reinforce(ratio):
    grpo = objective("grpo", ratio=ratio)
    plain = objective("grpo", ratio="none", gate="none")
    gradients = []
    for method in (grpo, plain):
        inputs, logprobs = example(method, gap=0.0)
        inputs = dataclasses.replace(inputs, old_logprobs=inputs.logprobs.detach())
        method.loss(inputs).loss.backward()
        gradients.append(logprobs.grad.numpy())
    if ratio == "sequence_product":  # each token's gradient is the mean's, summed over the trajectory's 3 tokens
        gradients[1] = gradients[1] * 3
    assert gradients[0] == pytest.approx(gradients[1], abs=1e-12)
    assert np.abs(gradients[0]).max() > 0.01


def test_diagnostics_carry_no_gradient_and_skip_masked_tokens():
    method = objective("grpo")
    inputs = tokens_loss([-1.0, -2.0], [-1.5, -1.0], [1, 1], behavior=[-1, -9], weights=[1, 0], reference=[-2, -9])
    out = method.loss(dataclasses.replace(inputs, entropies=torch.tensor([0.5, 7.0], dtype=torch.float64)))
    assert not any(x.requires_grad for x in (*out.sums.values(), *out.maxima.values()))
    sums = {name: value.item() for name, value in out.sums.items()}
    assert sums["tokens"] == 1
    assert sums["entropy"] == 0.5
    assert sums["behavior_k1"] == pytest.approx(0.5)
    assert sums["behavior_abs"] == pytest.approx(0.5)
    assert sums["reference_k1"] == pytest.approx(1.0)
    assert sums["reference_k3"] == pytest.approx(np.exp(-1))
    assert sums["old_k3"] == pytest.approx(np.exp(0.5) - 1.5)
    assert sums["clipped_positive"] == 1
    assert sums["policy_loss"] == pytest.approx(-1.2)
    assert out.maxima["ratio"].item() == pytest.approx(np.exp(0.5))


def test_an_empty_micro_batch_has_loss_0():
    for ratio in ("token", "sequence_product"):
        inputs = dataclasses.replace(
            tokens_loss([], [], [], weights=[]), sequence_ids=torch.zeros(0, dtype=torch.int64)
        )
        out = objective("grpo", ratio=ratio).loss(inputs)
        out.loss.backward()
        assert out.loss.item() == 0
        assert out.sums["tokens"].item() == 0
        assert out.maxima["ratio"].item() == 0


def test_enormous_log_ratios_stay_finite():
    inputs = tokens_loss([0.0, -500.0], [-500.0, 0.0], [-1, 1], reference=[-400.0, 0.0], behavior=[-300.0, 0.0])
    out = objective("grpo", mismatch="token_tis", regularize={"coef": 0.1}).loss(inputs)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert torch.isfinite(inputs.logprobs.grad).all()
    assert all(torch.isfinite(v) for v in out.sums.values())
