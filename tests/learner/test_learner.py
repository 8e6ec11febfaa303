"""The learner against a slow twin: one row at a time, full logits, plain sums."""

from __future__ import annotations

from dataclasses import replace

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
from agentrl.objective.objective import Objective
from agentrl.objective.spec import load_spec
from agentrl.trajectory import Group, Outcome, Segment, Trajectory, Turn
from tests.learner.conftest import VOCABULARY, make_model

SETTINGS = OptimizerSettings(lr=0.05, max_grad_norm=1e9)


def make_trajectory(rng: np.random.Generator, group: int, lengths: list[tuple[int, int]]) -> Trajectory:
    """Turns of (observation tokens, action tokens); random ids, rewards and behavior log-probs."""
    spans, turns, start = [], [], 0
    for observed, acted in lengths:
        start += observed
        spans.append(slice(start, start + acted))
        turns.append(Turn(0, spans[-1], {"r": float(rng.normal())}))
        start += acted
    mask = np.zeros(start, np.bool_)
    for span in spans:
        mask[span] = True
    segment = Segment(
        rng.integers(0, VOCABULARY, start),
        mask,
        np.where(mask, -rng.random(start), 0).astype(np.float32),
        np.where(mask, 0, -1),
    )
    reward = sum(turn.rewards["r"] for turn in turns)
    return Trajectory(
        f"t{group}", f"g{group}", 0, (segment,), tuple(turns), Outcome.TERMINATED, reward, {"r": "outcome"}
    )


def make_groups(seed: int, *, groups: int = 3, size: int = 4) -> list[Group]:
    rng = np.random.default_rng(seed)
    return [
        Group(
            f"g{g}",
            f"t{g}",
            tuple(
                make_trajectory(rng, g, [tuple(rng.integers(1, 7, 2)) for _ in range(rng.integers(1, 4))])
                for _ in range(size)
            ),
        )
        for g in range(groups)
    ]


def make_learner(model: Qwen3ForCausalLM, preset: str = "grpo", **keywords: object) -> Learner:
    return Learner(model, Objective(load_spec(preset)), SETTINGS, total_updates=100, **keywords)  # type: ignore[arg-type]


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


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 400), st.integers(0, 3))
def test_the_micro_batch_size_never_changes_the_update(budget: int, seed: int) -> None:
    results = []
    for tokens in (budget, 10_000):
        model = make_model()
        learner = make_learner(model, micro_batch_tokens=tokens)
        metrics = learner.update(credit(learner, make_groups(seed)), step=0)
        results.append((metrics["loss"], metrics["grad_norm"], gradients(model)))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
    for name, gradient in results[0][2].items():
        torch.testing.assert_close(gradient, results[1][2][name], atol=2e-5, rtol=1e-3)


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
