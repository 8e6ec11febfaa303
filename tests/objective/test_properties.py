"""What holds for every preset and any episodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.objective import Objective, Scores, load_spec, preset_names
from agentrl.trajectory import Group, Outcome
from tests.objective import twin
from tests.objective.loss_play import SEEDS, loss_and_gradients
from tests.objective.play import episode, objective, steady
from tests.objective.step_play import any_groups, credited_step, in_rows

few = settings(deadline=None, max_examples=8)  # of each preset
REWARDS = st.sampled_from([0.0, 1.0, 0.5, -0.25, 0.1])
TURNS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), REWARDS), min_size=1, max_size=4)
OUTCOMES = st.sampled_from([Outcome.TERMINATED, Outcome.TERMINATED, Outcome.TRUNCATED_TURNS])
every_preset = pytest.mark.parametrize("preset", preset_names())


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


def preset_of(name: str) -> Objective:
    """The preset, with the penalties that need a reference and are off by default."""
    table = load_spec(name).as_dict()
    on = {
        slot: [{**p, key: 0.1} if p.get(key) == 0.0 else p for p in table[slot]]
        for slot, key in (("regularize", "coef"), ("kl_in_reward", "beta"))
    }
    return Objective(load_spec(name, on))


@steady
@given(groups_strategy(min_size=2))
def test_grpo_advantages_of_a_group_sum_to_0(groups):
    method = objective("grpo")
    batch = method.select(groups)
    advantages = method.credit(batch, Scores()).advantages
    one_a_trajectory = [
        advantages[batch.action_mask & (batch.token_trajectory == i)][0] for i in range(batch.n_trajectories)
    ]
    assert np.bincount(batch.group_ids, one_a_trajectory) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("preset", ["grpo", "rloo", "dr_grpo", "gspo", "lite_ppo"])
@steady
@given(groups=groups_strategy(), constant=st.floats(-5, 5))
def test_a_constant_added_to_all_rewards_of_a_group_changes_nothing(preset, groups, constant):
    def raised(t):
        last = replace(t.turns[-1], rewards={"correct": t.turns[-1].rewards["correct"] + constant})
        return replace(t, turns=(*t.turns[:-1], last), reward=t.reward + constant)

    first = groups[0]
    moved = [replace(first, trajectories=tuple(map(raised, first.trajectories))), *groups[1:]]
    if preset == "lite_ppo":  # its std is the batch's, so the constant is everybody's
        moved = [replace(g, trajectories=tuple(map(raised, g.trajectories))) for g in groups]
    method = objective(preset)
    before, after = (method.credit(method.select(g), Scores()).advantages for g in (groups, moved))
    # A group of equal rewards has std 0; rounding of the sum is then all that is divided by eps.
    assert after == pytest.approx(before, abs=1e-4)


@every_preset
@few
@given(seed=SEEDS)
def test_what_models_say_of_observation_tokens_changes_nothing(preset, seed):
    method, groups = preset_of(preset), any_groups(seed)
    (one, step), (other, changed) = (credited_step(method, groups, seed, off_actions=k) for k in (1, 2))
    mask = one.batch.action_mask
    assert not np.array_equal(step.now, changed.now)
    assert np.array_equal(one.advantages, other.advantages)
    assert not one.advantages[~mask].any()
    assert all(np.array_equal(one.columns[k][mask], other.columns[k][mask]) for k in one.columns)
    losses = [loss_and_gradients(method, x) for x in (step, changed)]
    assert losses[0][0] == losses[1][0]
    for name, gradient in losses[0][1].items():
        assert np.array_equal(gradient, losses[1][1][name])
        assert not gradient[~mask].any()


@every_preset
@few
@given(seed=SEEDS, masked=st.booleans())
def test_any_split_into_micro_batches_gives_the_same_loss_and_gradient(preset, seed, masked):
    """Tokens may be cut anywhere, but for presets that want whole trajectories: between these, in any order."""
    method = preset_of(preset)
    if masked:
        kept = [f for f in method.spec.as_dict()["filters"] if f["name"] != "truncated_mask"]
        method = Objective(load_spec(preset, {"filters": [*kept, "truncated_mask"]}))
    _, step = credited_step(method, any_groups(seed), seed)
    rng = np.random.default_rng(seed)
    tokens = rng.permutation(np.flatnonzero(step.batch.loss_mask))
    if method.spec.needs_whole_trajectories:
        owner = step.batch.token_trajectory[tokens]
        places = rng.permutation(step.batch.n_trajectories) % 3
        parts = [tokens[places[owner] == part] for part in range(3)]
    else:
        parts = np.split(tokens, np.sort(rng.integers(0, len(tokens) + 1, 3)))
    whole, cut = loss_and_gradients(method, step), loss_and_gradients(method, step, parts)
    assert cut[0] == pytest.approx(whole[0], abs=1e-12)
    for name, gradient in whole[1].items():
        assert cut[1][name] == pytest.approx(gradient, abs=1e-12)


@every_preset
@few
@given(seed=SEEDS, at=st.sets(st.integers(1, 3), min_size=1))
def test_cutting_a_stream_into_segments_changes_nothing(preset, seed, at):
    """A trajectory counts once, however many rows it has."""
    method, whole = preset_of(preset), any_groups(seed)
    cut = [replace(g, trajectories=tuple(in_rows(t, sorted(at)) for t in g.trajectories)) for g in whole]
    assert any(len(t.segments) > 1 for g in cut for t in g.trajectories) == any(
        len(t.turns) > k for g in cut for t in g.trajectories for k in at
    )
    (one, step), (other, in_pieces) = (credited_step(method, groups, seed) for groups in (whole, cut))
    assert np.array_equal(one.advantages, other.advantages)
    assert np.array_equal(method.token_weights(one.batch), method.token_weights(other.batch))
    assert dict(one.metrics) == dict(other.metrics)
    losses = [loss_and_gradients(method, x) for x in (step, in_pieces)]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-12)
    assert losses[0][1]["now"] == pytest.approx(losses[1][1]["now"], abs=1e-12)


@every_preset
@few
@given(seed=SEEDS, data=st.data())
def test_weights_of_a_minibatch_are_those_of_its_trajectories_alone(preset, seed, data):
    method = Objective(load_spec(preset, {"filters": "none"}))
    groups = any_groups(seed)
    batch = method.select(groups)
    chosen = sorted(data.draw(st.sets(st.integers(0, batch.n_trajectories - 1), min_size=1)))
    weights = method.token_weights(batch, np.array(chosen))
    inside = {id(batch.trajectories[i]) for i in chosen}
    alone = [replace(g, trajectories=tuple(t for t in g.trajectories if id(t) in inside)) for g in groups]
    mine = np.isin(batch.token_trajectory, chosen)
    assert weights[mine] == pytest.approx(method.token_weights(method.select(alone)), rel=1e-12)
    assert not weights[~mine].any()


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
        penalty = {"name": "k1", "beta": beta}
        method = objective("reinforce", credit=chosen, scale=scale, baseline=baseline, kl_in_reward=penalty)
        batch = method.select(groups)
        rng = np.random.default_rng(seed)
        now, reference = (rng.normal(-1, 0.5, batch.n_tokens).astype(np.float32) for _ in range(2))
        gap = now.astype(float) - reference
        penalties = [
            [-beta * float(gap[t]) for t in np.flatnonzero(batch.action_mask & (batch.token_trajectory == i))]
            for i in range(batch.n_trajectories)
        ]
        wanted = twin.advantages(groups, penalties, kind=kind, gamma=gamma, baseline=baseline, scale=scale)
        got = method.credit(batch, Scores(now, reference)).advantages[batch.action_mask]
        assert got == pytest.approx([a for row in wanted for a in row], rel=1e-5, abs=1e-4)
