"""What holds for every component of the trajectory side and any step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.objective.trajectory_side.aggregate import AGGREGATES
from agentrl.objective.trajectory_side.gate import GATES
from agentrl.trajectory import Group
from tests.objective.loss_play import (
    BASE,
    COMPONENTS,
    SEEDS,
    Step,
    cast,
    choice,
    draw_step,
    drawn_groups,
    inputs_of,
    loss_and_gradients,
    policy_gradient,
    with_component,
)
from tests.objective.play import episode, objective

few = settings(deadline=None, max_examples=12)
every_component = pytest.mark.parametrize(("slot", "name"), COMPONENTS)
close = pytest.approx


def same(one, other):
    """Losses and gradients."""
    assert other[0] == close(one[0], rel=1e-9, abs=1e-12)
    for name, gradient in one[1].items():
        assert other[1][name] == close(gradient, rel=1e-9, abs=1e-12)


def picked(step: Step, at: np.ndarray, **changes) -> Step:
    """The step's numbers at tokens `at`, as another step."""
    arrays = {k: v[at] for k, v in vars(step).items() if isinstance(v, np.ndarray)}
    return replace(step, **{**arrays, "columns": {k: v[at] for k, v in step.columns.items()}, **changes})


@every_component
@few
@given(groups=drawn_groups(), seed=SEEDS)
def test_masking_all_tokens_of_a_trajectory_is_deleting_it(slot, name, groups, seed):
    """Also with seq_sum_const, whose number of sequences is of those that have loss tokens."""
    method = with_component(slot, name)
    step = draw_step(method, groups, seed)
    alone = [replace(g, trajectories=tuple(t for t in g.trajectories if not t.outcome.truncated)) for g in groups]
    batch = method.select(alone)
    whole = np.array([not t.outcome.truncated for t in step.batch.trajectories], bool)[step.batch.token_trajectory]
    kept = picked(step, np.flatnonzero(whole), batch=batch)
    one, other = loss_and_gradients(method, step), loss_and_gradients(method, kept)
    same((one[0], {k: v[whole] for k, v in one[1].items()}), other)
    assert not any(v[~whole].any() for v in one[1].values())


@every_component
@few
@given(groups=drawn_groups(), seed=SEEDS, noise=SEEDS)
def test_tokens_of_weight_0_change_nothing(slot, name, groups, seed, noise):
    """They stand in the micro-batch, with any numbers or none; no sum, mean, maximum or quantile sees them."""
    method = with_component(slot, name)
    step = draw_step(method, groups, seed)
    rng = np.random.default_rng(noise)
    masked = ~step.batch.loss_mask
    wild = {
        k: np.where(masked, rng.choice([-30.0, 0.0, 30.0, np.inf, np.nan], len(masked)), v)
        for k, v in vars(step).items()
        if isinstance(v, np.ndarray) and k != "returns"
    }
    everything = np.flatnonzero(step.batch.action_mask)
    leaf = torch.tensor(wild["now"], requires_grad=True)
    out = method.loss(inputs_of(method, replace(step, **wild), where=everything, now=leaf))
    (gradient,) = torch.autograd.grad(out.loss, leaf)
    wanted = method.loss(inputs_of(method, step))
    assert out.loss.item() == close(wanted.loss.item(), rel=1e-9, abs=1e-12)
    assert gradient.numpy() == close(policy_gradient(method, step), rel=1e-9, abs=1e-12)
    for mine, theirs in ((out.sums, wanted.sums), (out.maxima, wanted.maxima)):
        assert {k: v.item() for k, v in mine.items()} == close({k: v.item() for k, v in theirs.items()}, abs=1e-9)
    assert sorted(out.samples["ratio"].tolist()) == close(sorted(wanted.samples["ratio"].tolist()))


@every_component
@few
@given(groups=drawn_groups(), seed=SEEDS)
def test_micro_batches_add_up(slot, name, groups, seed):
    """Loss, gradients and diagnostic sums; between trajectories where a component mixes their tokens."""
    method = with_component(slot, name)
    step = draw_step(method, groups, seed)
    rng = np.random.default_rng(seed)
    tokens = rng.permutation(np.flatnonzero(step.batch.loss_mask))
    places = rng.integers(0, 3, step.batch.n_tokens)[tokens]
    if method.spec.needs_whole_trajectories:
        places = rng.integers(0, 3, step.batch.n_trajectories)[step.batch.token_trajectory[tokens]]
    parts = [tokens[places == part] for part in range(3)]
    same(loss_and_gradients(method, step), loss_and_gradients(method, step, parts))
    whole = method.loss(inputs_of(method, step)).sums
    sums = [method.loss(inputs_of(method, step, where=part)).sums for part in parts]
    for key, value in whole.items():
        assert sum(s[key].item() for s in sums) == close(value.item(), rel=1e-9, abs=1e-12)


@every_component
def test_tokens_of_a_trajectory_are_mixed_only_where_it_is_said(slot, name):
    """Cutting a trajectory in two changes a loss exactly where `whole` is declared."""
    method = with_component(slot, name)
    groups = [Group("g", "t", (episode([(1, 3, 1.0), (1, 3, 0.0)]), episode([(1, 4, 0.0)], seed=1)))]
    changes = False
    for seed in range(4):
        step = draw_step(method, groups, seed, gap=0.5)
        tokens = np.flatnonzero(step.batch.loss_mask)
        whole, cut = loss_and_gradients(method, step), loss_and_gradients(method, step, [tokens[::2], tokens[1::2]])
        changes = changes or whole[1]["now"] != close(cut[1]["now"], abs=1e-12)
    assert changes == method.spec.needs_whole_trajectories


@pytest.mark.parametrize("name", GATES)
@few
@given(groups=drawn_groups(), seed=SEEDS)
def test_at_ratio_1_the_gradient_is_that_of_reinforce(name, groups, seed):
    """-A a token for gates on tokens' ratios (SAPO's slope at 1 is 1 for any tau), and for weights on whole
    trajectories; Clip-Cov leaves drawn tokens out, and Kimi's regression has 2 tau A at every token."""
    method, plain = with_component("gate", name), with_component("ratio", "none")
    step = draw_step(method, groups, seed, gap=0.0)
    wanted = policy_gradient(plain, step)
    if name == "clip_cov":
        wanted = wanted * (1 - step.columns["clip_cov"])
    if name == "l2_logratio":
        wanted = wanted * 2 * method.spec.gate.tau * step.batch.loss_counts[step.batch.token_trajectory]
    assert policy_gradient(method, step) == close(wanted, abs=1e-12)


@few
@given(groups=drawn_groups(), seed=SEEDS, gap=st.sampled_from([0.0, 0.01, 0.5, 30.0]))
def test_gspo_is_gspo_token_where_the_advantage_is_constant(groups, seed, gap):
    gate = {"name": "clip", "low": 0.1, "high": 0.15}
    geo = with_component("ratio", "sequence_geo", gate=gate)
    token = with_component("ratio", "seq_token_sg", gate=gate)
    step = draw_step(geo, groups, seed, gap=gap)
    same(loss_and_gradients(geo, step), loss_and_gradients(token, step))


@few
@given(n=st.integers(1, 4), length=st.integers(1, 5), seed=SEEDS)
def test_with_equal_lengths_all_means_are_one(n, length, seed):
    """One turn a trajectory and groups of one size."""
    groups = [Group(str(g), str(g), tuple(episode([(1, length, 0.0)], seed=i) for i in range(2))) for g in range(n)]
    weights = {}
    for name in AGGREGATES:
        method = objective("reinforce", **{**BASE, "aggregate": choice("aggregate", name)})
        batch = method.select(groups)
        weights[name] = method.token_weights(batch)[batch.loss_mask]
    for name in ("seq_mean_token_mean", "prompt_mean", "turn_mean"):
        assert weights[name] == close(weights["token_mean"], rel=1e-12)
    assert weights["seq_mean_token_sum"] == close(weights["token_mean"] * length)
    assert weights["seq_sum_const"] == close(weights["seq_mean_token_sum"] / 7)


@few
@given(groups=drawn_groups(), seed=SEEDS)
def test_the_drawn_columns_know_nothing_of_masked_tokens(groups, seed):
    for slot, name in (("gate", "clip_cov"), ("regularize", "kl_cov")):
        method = with_component(slot, name)
        step = draw_step(method, groups, seed)
        (column,) = step.columns.values()
        assert set(column.tolist()) <= {0.0, 1.0}
        assert not column[~step.batch.loss_mask].any()
        n = int(step.batch.loss_mask.sum())
        assert column.sum() <= max(1, int(0.2 * n))
        if name == "kl_cov":
            assert column.sum() == min(n, max(1, int(0.2 * n)))


@every_component
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_enormous_log_ratios_leave_loss_gradient_and_diagnostics_finite(slot, name, dtype):
    method = with_component(slot, name)
    step = draw_step(method, [Group("g", "t", tuple(episode([(0, 4, float(i))], seed=i) for i in range(2)))], 0)
    far = np.array([0.0, -1e4, 0.0, -1e4, -1e4, 0.0, -60.0, -25.0])
    for now, old, behavior in ((far, far[::-1], 0 * far), (0 * far, far, far[::-1]), (far, 0 * far, far)):
        wild = replace(step, now=now, old=old, behavior=behavior, reference=np.roll(far, 1))
        inputs = cast(inputs_of(method, wild), dtype)
        out = method.loss(inputs)
        (gradient,) = torch.autograd.grad(out.loss, inputs.logprobs)
        assert out.loss.dtype is dtype
        assert torch.isfinite(out.loss)
        assert torch.isfinite(gradient).all()
        assert all(torch.isfinite(v).all() for v in (*out.sums.values(), *out.maxima.values()))
