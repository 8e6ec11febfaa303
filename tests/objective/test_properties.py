"""Properties that hold for any episodes, checked on drawn ones, and agreement with the slow twin."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.objective import Scores, preset_names
from agentrl.trajectory import Group, Outcome
from tests.objective import twin
from tests.objective.play import episode, loss_inputs, objective, steady

REWARDS = st.sampled_from([0.0, 1.0, 0.5, -0.25, 0.1])
TURNS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), REWARDS), min_size=1, max_size=4)
OUTCOMES = st.sampled_from([Outcome.TERMINATED, Outcome.TERMINATED, Outcome.TRUNCATED_TURNS])
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def groups_strategy(draw: st.DrawFn, min_size: int = 1) -> list[Group]:
    groups = []
    for g in range(draw(st.integers(1, 3))):
        played = []
        for i in range(draw(st.integers(min_size, 4))):
            turns, cuts = draw(TURNS), draw(st.sets(st.integers(1, 3)))
            cuts_inside = [k for k in cuts if k < len(turns)]
            played.append(episode(turns, group=str(g), seed=i, outcome=draw(OUTCOMES), new_segment_at=cuts_inside))
        groups.append(Group(str(g), f"task{g}", tuple(played)))
    return groups


def draw_scores(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    now = rng.normal(-1.0, 0.5, n)
    return {"now": now, "old": now + rng.normal(0, 0.3, n), "reference": now + rng.normal(0, 0.3, n)}


def credit(method, groups, seed=0):
    batch = method.select(groups)
    drawn = draw_scores(batch.n_tokens, seed)
    return method.credit(batch, Scores(drawn["old"].astype(np.float32), drawn["reference"].astype(np.float32)))


def loss_and_gradient(method, credited, drawn, parts=None):
    """Loss and gradient by log-prob [N], summed over micro-batches; `parts` are arrays of token positions."""
    batch = credited.batch
    weights = method.token_weights(batch)
    logprobs = torch.tensor(drawn["now"], requires_grad=True)
    total = 0.0
    for where in parts if parts is not None else [np.flatnonzero(batch.action_mask)]:
        inputs = loss_inputs(
            batch, credited.advantages, weights, logprobs, drawn["old"], reference=drawn["reference"], where=where
        )
        loss = method.loss(inputs).loss
        loss.backward()
        total += loss.item()
    return total, logprobs.grad.numpy()


@steady
@given(groups_strategy(min_size=2))
def test_grpo_advantages_of_a_group_sum_to_0(groups):
    method = objective("grpo")
    credited = credit(method, groups)
    batch = credited.batch
    one_a_trajectory = [
        credited.advantages[batch.action_mask & (batch.token_trajectory == i)][0] for i in range(batch.n_trajectories)
    ]
    assert np.bincount(batch.group_ids, one_a_trajectory) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("preset", ["grpo", "rloo", "dr_grpo"])
@steady
@given(groups=groups_strategy(), constant=st.floats(-5, 5))
def test_a_constant_added_to_all_rewards_of_a_group_changes_nothing(preset, groups, constant):
    def raised(t):
        last = dataclasses.replace(t.turns[-1], rewards={"correct": t.turns[-1].rewards["correct"] + constant})
        return dataclasses.replace(t, turns=(*t.turns[:-1], last), reward=t.reward + constant)

    first = groups[0]
    moved = [dataclasses.replace(first, trajectories=tuple(map(raised, first.trajectories))), *groups[1:]]
    method = objective(preset)
    # A group of equal rewards has std 0; rounding of the sum is then all that is divided by eps.
    before, after = credit(method, groups).advantages, credit(method, moved).advantages
    assert after == pytest.approx(before, abs=1e-4)


@pytest.mark.parametrize("preset", preset_names())
@steady
@given(groups=groups_strategy(), seed=SEEDS)
def test_what_models_say_of_observation_tokens_changes_nothing(preset, groups, seed):
    overrides = {"grpo": {"regularize": {"coef": 0.1}}, "rloo": {"kl_in_reward": {"beta": 0.1}}}.get(preset, {})
    method = objective(preset, **overrides)
    batch = method.select(groups)
    drawn = draw_scores(batch.n_tokens, seed)
    other = draw_scores(batch.n_tokens, seed + 1)
    changed = {name: np.where(batch.action_mask, drawn[name], other[name]) for name in drawn}
    credits, losses = [], []
    for scores in (drawn, changed):
        credited = method.credit(
            batch, Scores(scores["old"].astype(np.float32), scores["reference"].astype(np.float32))
        )
        credits.append(credited.advantages)
        losses.append(loss_and_gradient(method, credited, scores))
    assert np.array_equal(credits[0], credits[1])
    assert losses[0][0] == losses[1][0]
    assert np.array_equal(losses[0][1], losses[1][1])
    assert not losses[0][1][~batch.action_mask].any()


@pytest.mark.parametrize("preset", preset_names())
@steady
@given(groups=groups_strategy(), seed=SEEDS, masked=st.booleans())
def test_any_split_into_micro_batches_gives_the_same_loss_and_gradient(preset, groups, seed, masked):
    method = objective(preset, filters=["truncated_mask"] if masked else "none")
    credited = credit(method, groups, seed)
    drawn = draw_scores(credited.batch.n_tokens, seed)
    actions = np.random.default_rng(seed).permutation(np.flatnonzero(credited.batch.action_mask))
    cuts = np.sort(np.random.default_rng(seed + 1).integers(0, len(actions) + 1, 3))
    whole = loss_and_gradient(method, credited, drawn)
    parts = loss_and_gradient(method, credited, drawn, parts=np.split(actions, cuts))
    assert parts[0] == pytest.approx(whole[0], abs=1e-12)
    assert parts[1] == pytest.approx(whole[1], abs=1e-12)


@pytest.mark.parametrize("preset", preset_names())
@steady
@given(turns=st.lists(TURNS, min_size=2, max_size=4), data=st.data())
def test_cutting_a_stream_into_segments_changes_no_statistic(preset, turns, data):
    cut = data.draw(st.integers(0, len(turns) - 1))
    at = data.draw(st.sets(st.integers(0, len(turns[cut]) - 1)))
    method = objective(preset)
    results = []
    for where in ([], sorted(at)):
        played = [episode(t, seed=i, new_segment_at=where if i == cut else []) for i, t in enumerate(turns)]
        credited = credit(method, [Group("g", "t", tuple(played))])
        mask = credited.batch.action_mask
        results.append((credited.advantages[mask], method.token_weights(credited.batch)[mask], dict(credited.metrics)))
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])
    assert results[0][2] == results[1][2]


@pytest.mark.parametrize("aggregate", ["token_mean", "seq_mean_token_mean", "seq_mean_token_sum"])
@steady
@given(groups=groups_strategy())
def test_masking_a_trajectory_weighs_the_others_as_if_it_were_not_there(aggregate, groups):
    method = objective("reinforce", aggregate=aggregate, filters=["truncated_mask"])
    batch = method.select(groups)
    alone = [
        dataclasses.replace(g, trajectories=tuple(t for t in g.trajectories if not t.outcome.truncated)) for g in groups
    ]
    kept = method.select(alone)
    assert np.array_equal(method.token_weights(batch)[batch.loss_mask], method.token_weights(kept)[kept.loss_mask])
    assert not method.token_weights(batch)[~batch.loss_mask].any()
    assert not method.credit(batch, Scores()).advantages[~batch.loss_mask].any()


@steady
@given(groups=groups_strategy(), data=st.data())
def test_weights_of_a_minibatch_are_those_of_its_trajectories_alone(groups, data):
    for preset in preset_names():
        method = objective(preset)
        batch = method.select(groups)
        chosen = sorted(data.draw(st.sets(st.integers(0, batch.n_trajectories - 1), min_size=1)))
        weights = method.token_weights(batch, np.array(chosen))
        alone = method.select([Group("g", "t", tuple(batch.trajectories[i] for i in chosen))])
        inside = np.isin(batch.token_trajectory, chosen)
        assert np.array_equal(weights[inside], method.token_weights(alone))
        assert not weights[~inside].any()


def twin_rows(credited, drawn):
    """The batch's tokens as the twin's loss wants them."""
    batch = credited.batch
    return [
        [
            {
                "logprob": drawn["now"][t],
                "old": drawn["old"][t],
                "reference": drawn["reference"][t],
                "behavior": float(batch.behavior_logprobs[t]),
                "advantage": float(credited.advantages[t]),
                "kept": bool(batch.loss_mask[t]),
            }
            for t in np.flatnonzero(batch.action_mask & (batch.token_trajectory == i))
        ]
        for i in range(batch.n_trajectories)
    ]


CREDITS = [("outcome_broadcast", 1.0), ("rtg_token", 1.0), ("rtg_token", 0.7), ("rtg_turn", 1.0), ("rtg_turn", 0.7)]
SCALES = [("none", b) for b in ("none", "batch_mean", "group_mean", "leave_one_out")]
SCALES += [("group_std", "group_mean"), ("group_std", "leave_one_out"), ("batch_std", "batch_mean")]


@pytest.mark.parametrize(("kind", "gamma"), CREDITS)
@steady
@given(groups=groups_strategy(), beta=st.sampled_from([0.0, 0.3]), seed=SEEDS)
def test_credit_agrees_with_the_twin(kind, gamma, groups, beta, seed):
    for scale, baseline in SCALES:
        if scale != "none" and kind != "outcome_broadcast":
            continue
        chosen = kind if kind == "outcome_broadcast" else {"name": kind, "gamma": gamma}
        method = objective(
            "reinforce", credit=chosen, scale=scale, baseline=baseline, kl_in_reward={"name": "k1", "beta": beta}
        )
        credited = credit(method, groups, seed)
        batch, scores = credited.batch, credited.scores
        gap = scores.logprobs.astype(float) - scores.reference
        penalties = [
            [-beta * float(gap[t]) for t in np.flatnonzero(batch.action_mask & (batch.token_trajectory == i))]
            for i in range(batch.n_trajectories)
        ]
        wanted = twin.advantages(groups, penalties, kind=kind, gamma=gamma, baseline=baseline, scale=scale)
        got = credited.advantages[batch.action_mask]
        assert got == pytest.approx([a for row in wanted for a in row], rel=1e-5, abs=1e-4)


LOSSES = [
    ({"ratio": "none", "gate": "none", "aggregate": a}, {"ratio": "none", "aggregate": a})
    for a in ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum")
] + [
    (
        {"ratio": "token", "gate": {"name": "clip", "low": 0.1, "high": 0.3}, "mismatch": "token_tis"},
        {"ratio": "token", "low": 0.1, "high": 0.3, "aggregate": "seq_mean_token_sum", "cap": 2.0},
    ),
    (
        {
            "ratio": "token",
            "regularize": {"name": "k3", "coef": 0.2},
            "aggregate": {"name": "seq_sum_const", "length": 9},
        },
        {"ratio": "token", "k3": 0.2, "aggregate": "seq_sum_const", "length": 9},
    ),
    (
        {"ratio": "sequence_product", "aggregate": "seq_mean_token_mean", "gate": "clip"},
        {"ratio": "sequence_product", "aggregate": "seq_mean_token_mean", "low": 0.2, "high": 0.2},
    ),
]


@pytest.mark.parametrize(("choices", "formula"), LOSSES)
@steady
@given(groups=groups_strategy(), seed=SEEDS)
def test_loss_agrees_with_the_twin(choices, formula, groups, seed):
    method = objective("reinforce", credit="outcome_broadcast", filters=["truncated_mask"], **choices)
    credited = credit(method, groups, seed)
    drawn = draw_scores(credited.batch.n_tokens, seed)
    value, _ = loss_and_gradient(method, credited, drawn)
    wanted = twin.loss(twin_rows(credited, drawn), **{"low": None, "high": None, **formula})
    assert value == pytest.approx(wanted, rel=1e-5, abs=1e-7)
