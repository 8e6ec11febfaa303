"""Every preset that ships, through the learner: finite, and the same update however the batch is cut."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from agentrl.learner.learner import Learner
from agentrl.learner.settings import OptimizerSettings
from agentrl.objective.batch import Memory
from agentrl.objective.loading import load_spec, preset_names
from agentrl.objective.objective import Objective
from agentrl.trajectory import FloatArray, Group, Outcome, Segment, Trajectory, Turn
from tests.learner.conftest import make_model
from tests.learner.episodes import make_groups

SAMPLER = Learner(make_model(), Objective(load_spec("grpo")), OptimizerSettings(), total_updates=1)


@cache
def rich_groups(seed: int) -> list[Group]:
    """Episodes with all that any preset reads: several segments, states, nodes, values, process parts, greedy episodes;
    one of them cut, one with a void turn, one failed, one group of equal rewards, one with a single valid episode."""
    rng = np.random.default_rng(seed)
    groups = make_groups(seed, groups=5, size=4, a_segment=2)
    made = []
    for group in groups:
        flat = group is groups[1]
        members = [_enriched(rng, t, flat=flat) for t in group.trajectories]
        if group is groups[2]:
            members[0] = replace(members[0], outcome=Outcome.TRUNCATED_TOKENS)
        if group is groups[3]:
            members[1:] = [replace(t, outcome=Outcome.FAILED_ENV, reward=None) for t in members[1:]]
        made.append(replace(group, trajectories=tuple(members), greedy=_enriched(rng, group.trajectories[0])))
    return made


def _enriched(rng: np.random.Generator, trajectory: Trajectory, *, flat: bool = False) -> Trajectory:
    """Rewards of 0 and 1, and process parts that cancel; log-probs as of a sampler that computes almost alike."""
    turns: list[Turn] = []
    cancelling = [0.25, *[0.0] * (len(trajectory.turns) - 2), -0.25] if len(trajectory.turns) > 1 else [0.0]
    for k, turn in enumerate(trajectory.turns):
        last = turn is trajectory.turns[-1]
        parts = {"right": float(rng.integers(2)) if last and not flat else 0.0, "step": cancelling[k]}
        facts = {"state_id": f"s{rng.integers(2)}", "node_id": f"n{k}{rng.integers(2)}", "value": float(rng.random())}
        turns.append(replace(turn, rewards=parts, void=bool(rng.random() < 0.1), **facts))  # type: ignore[arg-type]
    kinds = {"right": "outcome", "step": "process"}
    reward = sum(sum(turn.rewards.values()) for turn in turns)
    segments = tuple(replace(s, logprobs=_sampled_logprobs(s, rng)) for s in trajectory.segments)
    return replace(trajectory, segments=segments, turns=tuple(turns), reward=reward, reward_kinds=kinds)


def _sampled_logprobs(segment: Segment, rng: np.random.Generator) -> FloatArray:
    out = np.zeros(len(segment), np.float32)
    out[segment.action_mask] = SAMPLER.logprobs(segment.token_ids, segment.action_mask)
    return out + np.where(segment.action_mask, rng.normal(0, 0.003, len(segment)), 0).astype(np.float32)


def update_twice(preset: str, budget: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Two steps of a run, the memory carried on; the second one's metrics and its last gradient."""
    objective = Objective(load_spec(preset))
    several = 2 if objective.spec.ratio.corrects else 1
    model = make_model()
    learner = Learner(
        model,
        objective,
        OptimizerSettings(lr=1e-4),
        total_updates=10,
        epochs=several,
        micro_batch_tokens=budget,
        reference=make_model(seed=4),
        teacher=make_model(seed=5),
    )
    memory: Memory = {}
    for step in range(2):
        batch = objective.select(rich_groups(step))
        credited = objective.credit(batch, learner.score(batch), memory)
        metrics = learner.update(credited, step=step)
        memory = objective.remember(credited, metrics)
    parameters = [*model.named_parameters()]
    parameters += [] if learner.value_head is None else [*learner.value_head.named_parameters("head")]
    return {**credited.metrics, **metrics}, {name: p.grad for name, p in parameters if p.grad is not None}


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_updates_the_same_however_the_batch_is_cut(preset: str) -> None:
    metrics, gradients = update_twice(preset, 10_000)
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    assert metrics["updates"] >= 1
    assert metrics["grad_norm"] > 0
    apart, gradients_apart = update_twice(preset, 20)
    assert apart["loss"] == pytest.approx(metrics["loss"], rel=1e-3, abs=1e-5)
    assert gradients.keys() == gradients_apart.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_apart[name], gradient, atol=1e-4, rtol=1e-2)


def test_an_empty_batch_goes_through_every_preset() -> None:
    """A step whose groups all failed or were all filtered moves nothing and stops nothing."""
    for preset in preset_names():
        objective = Objective(load_spec(preset))
        learner = Learner(
            make_model(),
            objective,
            OptimizerSettings(),
            total_updates=1,
            reference=make_model(seed=4),
            teacher=make_model(seed=5),
        )
        batch = objective.select([])
        credited = objective.credit(batch, learner.score(batch), {})
        metrics = learner.update(credited, step=0)
        memory = objective.remember(credited, metrics)
        assert metrics["updates"] == 0
        assert not any(math.isnan(value) for numbers in memory.values() for value in numbers.values()), preset
