"""The learner against a slow twin: one row at a time, full logits, plain sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3ForCausalLM

from agentrl.errors import RunStoppedError
from agentrl.learner.learner import Learner
from agentrl.learner.settings import OptimizerSettings
from agentrl.objective.batch import Credited
from agentrl.objective.loading import load_spec
from agentrl.objective.objective import Objective
from agentrl.trajectory import Group
from tests.learner.conftest import make_model
from tests.learner.episodes import make_groups

SETTINGS = OptimizerSettings(lr=0.05, max_grad_norm=1e9)


def make_learner(
    model: Qwen3ForCausalLM, preset: str = "grpo", overrides: Mapping[str, Any] | None = None, **keywords: Any
) -> Learner:
    return Learner(model, Objective(load_spec(preset, overrides)), SETTINGS, total_updates=100, **keywords)


def credit(learner: Learner, groups: list[Group]) -> Credited:
    batch = learner.objective.select(groups)
    return learner.objective.credit(batch, learner.score(batch))


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def twin_gradients(model: Qwen3ForCausalLM, credited: Credited, weights: np.ndarray) -> dict[str, torch.Tensor]:
    """-sum_t w_t A_t log pi(t), each row by itself (the gradient of every preset at ratio 1)."""
    model.zero_grad()
    batch = credited.batch
    loss = torch.zeros(())
    for start, end in zip(batch.row_starts[:-1], batch.row_starts[1:], strict=True):
        ids = torch.from_numpy(batch.token_ids[start:end])
        every = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        for t in range(start, end):
            if batch.loss_mask[t]:
                logprob = every[t - start - 1, ids[t - start]]
                loss = loss - float(weights[t]) * float(credited.advantages[t]) * logprob
    loss.backward()
    return gradients(model)


@pytest.mark.parametrize("preset", ["reinforce", "rloo", "grpo", "dr_grpo"])
def test_the_gradient_equals_the_twins(preset: str) -> None:
    model = make_model()
    learner = make_learner(model, preset, micro_batch_tokens=40)
    credited = credit(learner, make_groups(0))
    expected = twin_gradients(model, credited, learner.objective.token_weights(credited.batch))
    learner.update(credited, step=0)
    got = gradients(model)  # left by the update's only backward
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name], expected[name], atol=2e-5, rtol=1e-4)


OBJECTIVES = {
    "grpo": ("grpo", {}),
    "of whole trajectories": (
        "grpo",
        {"ratio": "sequence_product", "aggregate": "seq_mean_token_mean", "mismatch": [], "gate": "clip"},
    ),
    "with a critic": ("ppo", {}),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 200), st.integers(0, 3))
def test_the_micro_batch_size_never_changes_the_update(name: str, budget: int, seed: int) -> None:
    """Nor where a trajectory has several segments and its tokens are mixed. The second of two updates is looked at:
    there the ratios are not 1 any more and the critic's head is not 0."""
    results = []
    for tokens in (budget, 10_000):
        model = make_model()
        learner = make_learner(model, *OBJECTIVES[name], epochs=2, micro_batch_tokens=tokens)
        learner.optimizer.param_groups[0]["lr"] = 1e-4
        credited = credit(learner, make_groups(seed, a_segment=2))
        metrics = learner.update(credited, step=0)
        head = {} if learner.value_head is None else gradients(learner.value_head)
        results.append((metrics["loss"], metrics["grad_norm"], {**gradients(model), **head}))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
    for key, gradient in results[0][2].items():
        torch.testing.assert_close(gradient, results[1][2][key], atol=2e-5, rtol=1e-3)


def test_what_stands_off_the_actions_teaches_nothing() -> None:
    """Log-probs and versions of observation tokens may be anything."""
    updates = []
    for disturb in (False, True):
        model = make_model()
        learner = make_learner(model)
        groups = make_groups(1)
        batch = learner.objective.select(groups)
        if disturb:
            noise = np.where(batch.action_mask, 0, 5 * np.random.default_rng(0).normal(size=batch.n_tokens))
            batch = replace(batch, behavior_logprobs=(batch.behavior_logprobs + noise).astype(np.float32))
        learner.update(learner.objective.credit(batch, learner.score(batch)), step=0)
        updates.append([p.detach().clone() for p in model.parameters()])
    for before, after in zip(*updates, strict=True):
        assert torch.equal(before, after)


def test_several_updates_a_batch_use_the_log_probs_from_before() -> None:
    model = make_model()
    learner = make_learner(model, epochs=2, minibatches=2)
    credited = credit(learner, make_groups(2))
    assert credited.scores.logprobs is not None
    first = slice(0, int(credited.batch.row_starts[1]))
    mask = credited.batch.action_mask[first]
    before = learner.logprobs(credited.batch.token_ids[first], mask)
    np.testing.assert_allclose(credited.scores.logprobs[first][mask], before, atol=1e-5)
    metrics = learner.update(credited, step=0)
    assert metrics["updates"] == 4
    assert metrics["ratio_max"] > 1.01  # the weights moved, and the ratio says so


def test_one_update_needs_no_scoring() -> None:
    learner = make_learner(make_model())
    credited = credit(learner, make_groups(2))
    assert credited.scores.logprobs is None
    assert learner.update(credited, step=0)["ratio_max"] == pytest.approx(1.0)


def test_the_reference_is_scored_where_it_is_asked_for() -> None:
    model = make_model()
    objective = Objective(load_spec("grpo", {"regularize": {"name": "k3", "coef": 0.1}}))
    learner = Learner(model, objective, SETTINGS, total_updates=10, reference=make_model(seed=5))
    credited = credit(learner, make_groups(3))
    assert learner.update(credited, step=0)["reference_k3"] > 0.01
    with pytest.raises(RunStoppedError, match="needs a reference"):
        Learner(model, objective, SETTINGS, total_updates=10).score(credited.batch)


def test_the_teacher_is_scored_where_it_is_asked_for() -> None:
    model, teacher = make_model(), make_model(seed=5)
    learner = make_learner(model, "opd", teacher=teacher)
    batch = learner.objective.select(make_groups(3))
    scores = learner.score(batch)
    assert scores.teacher is not None
    assert scores.reference is None
    theirs = make_learner(teacher, epochs=2).score(batch).logprobs
    np.testing.assert_allclose(scores.teacher, theirs, atol=1e-6)
    assert learner.update(learner.objective.credit(batch, scores), step=0)["grad_norm"] > 0
    with pytest.raises(RunStoppedError, match="needs a teacher"):
        make_learner(model, "opd").score(batch)


def test_the_entropys_gradient_reaches_the_weights_where_the_objective_reads_it() -> None:
    """One update's gradient with an entropy bonus, less that without it: that of -coef times the mean entropy."""
    model = make_model()
    difference: dict[str, torch.Tensor] = {}
    for coef in (0.0, 0.5):
        bonus = {"regularize": [{"name": "entropy", "coef": coef}], "aggregate": "token_mean"}
        learner = make_learner(model, "reinforce", bonus, micro_batch_tokens=30)
        learner.optimizer.param_groups[0]["lr"] = learner.optimizer.param_groups[1]["lr"] = 0.0
        credited = credit(learner, make_groups(1))
        learner.update(credited, step=0)
        difference = {k: g - difference.get(k, 0) for k, g in gradients(model).items()}
    model.zero_grad()
    batch = credited.batch
    entropies = []
    for start, end in zip(batch.row_starts[:-1], batch.row_starts[1:], strict=True):
        logits = model(input_ids=torch.from_numpy(batch.token_ids[start:end])[None]).logits[0]
        before = np.flatnonzero(batch.loss_mask[start:end]) - 1
        entropies.append(torch.distributions.Categorical(logits=logits[before]).entropy())
    (-0.5 * torch.cat(entropies).mean()).backward()
    expected = gradients(model)
    assert difference.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(difference[name], gradient, atol=2e-5, rtol=1e-3)


def test_the_ratios_quantiles_are_those_of_the_steps_tokens() -> None:
    learner = make_learner(make_model(), epochs=2, micro_batch_tokens=30)
    metrics = learner.update(credit(learner, make_groups(2)), step=0)
    assert 0 < metrics["ratio/p01"] < metrics["ratio/p50"] < metrics["ratio/p99"] <= metrics["ratio_max"]


def test_tokens_that_are_not_trained_on_are_scored_all_the_same() -> None:
    """A KL term in the reward counts every action token, whatever a filter masks out of the loss."""
    learner = make_learner(make_model(), epochs=2)
    batch = learner.objective.select(make_groups(3))
    whole = learner.score(batch).logprobs
    masked = learner.score(replace(batch, loss_mask=batch.loss_mask & (batch.token_trajectory % 2 == 0))).logprobs
    assert whole is not None
    assert masked is not None
    np.testing.assert_allclose(masked, whole, atol=1e-5)


def test_an_infinite_gradient_stops_the_run_and_keeps_the_weights() -> None:
    model = make_model()
    learner = make_learner(model)
    credited = credit(learner, make_groups(0))
    broken = replace(credited, advantages=np.full_like(credited.advantages, np.inf))
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RunStoppedError, match="the update was not made"):
        learner.update(broken, step=0)
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_no_trajectory_left_is_no_update() -> None:
    learner = make_learner(make_model())
    before = [p.detach().clone() for p in learner.model.parameters()]
    metrics = learner.update(credit(learner, []), step=0)
    assert metrics["updates"] == 0
    for old, new in zip(before, learner.model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_state_goes_on_where_it_stopped() -> None:
    """Two updates in one learner, and one each in two with the state carried over: the same weights, bit for bit."""
    whole, first, second = make_model(), make_model(), make_model(seed=9)
    learner = make_learner(whole)
    for step in range(2):
        learner.update(credit(learner, make_groups(step)), step=step)
    half = make_learner(first)
    half.update(credit(half, make_groups(0)), step=0)
    second.load_state_dict(first.state_dict())
    rest = make_learner(second)
    rest.load_state(half.state())
    rest.update(credit(rest, make_groups(1)), step=1)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
