"""Scales: each against its slow twin, and what must hold for any episodes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.trajectory import Group, Outcome
from tests.objective import twin, twin_turns
from tests.objective.play import episode, groups_of, objective, per_trajectory, steady
from tests.objective.turns import by_turn, moves_of, returns_to_go, stateful_groups, through, totals_of

close = pytest.approx
TURN = {"name": "rtg_turn", "gamma": 0.7}
COMPANIONS = [
    ("turn_mean", "turn_std"),
    ("turn_leave_one_out", "turn_std"),
    ("state_mean", "state_std"),
    ("state_leave_one_out", "state_std"),
    ("group_turn_mean", "group_turn_std"),
]


def credited(groups, scores=None, **slots):
    method = objective("reinforce", **slots)
    return method.credit(method.select(groups), scores or Scores())


@pytest.mark.parametrize("scale", ["group_mean", "nonzero_frac", "whiten"])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@steady
@given(groups=stateful_groups(shortest_turn=1))
def test_scales_of_groups_agree_with_the_twin(scale, baseline, groups):
    groups = [g for g in groups if len(g.trajectories) > 1 or scale != "whiten"] or groups_of([1, 0])
    penalties = [[0.0] * t.n_action_tokens for group in groups for t in group.trajectories]
    wanted = twin.advantages(groups, penalties, kind="outcome_broadcast", gamma=1.0, baseline=baseline, scale=scale)
    got = credited(groups, credit="outcome_broadcast", baseline=baseline, scale=scale)
    assert got.advantages[got.batch.action_mask] == close([a for row in wanted for a in row], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("baseline", "scale"), COMPANIONS)
@steady
@given(groups=stateful_groups())
def test_spreads_of_turns_agree_with_the_twin(baseline, scale, groups):
    chosen = {"name": baseline, "gamma": 0.7} if baseline.endswith("leave_one_out") else baseline
    got = by_turn(credited(groups, credit=TURN, baseline=chosen, scale=scale))
    credits = [returns_to_go(t, 0.7) for group in groups for t in group.trajectories]
    wanted = twin_turns.advantages(moves_of(groups, credits), totals_of(groups), baseline, scale)
    for mine, other in zip(got, wanted, strict=True):
        assert mine is None or mine == close(other, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["outcome_broadcast", "rtg_turn", "rtg_token"])
@steady
@given(groups=stateful_groups(shortest_turn=1))
def test_whitening_over_sequences_counts_each_once(kind, groups):
    credit = kind if kind == "outcome_broadcast" else {"name": kind, "gamma": 0.7}
    got = credited(groups, credit=credit, baseline="none", scale={"name": "whiten", "level": "sequence"})
    played = [t for group in groups for t in group.trajectories]
    rows = {
        "outcome_broadcast": [[t.reward] for t in played],
        "rtg_turn": [returns_to_go(t, 0.7) for t in played],
        "rtg_token": [twin.credit(t, [0.0] * t.n_action_tokens, "rtg_token", 0.7) for t in played],
    }[kind]
    wanted = [x for row in twin_turns.whiten_sequences(rows) for x in row]
    mine = {"outcome_broadcast": per_trajectory, "rtg_turn": by_turn}.get(
        kind, lambda c: c.advantages[c.batch.action_mask].tolist()
    )(got)
    assert mine == close(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["outcome_broadcast", "rtg_turn", "rtg_token"])
def test_whitening_over_tokens_is_about_loss_tokens_alone(kind):
    played = (
        episode([(1, 3, 1.0)]),
        episode([(1, 1, 0.0)], seed=1),
        episode([(1, 5, 9.0)], seed=2, outcome=Outcome.TRUNCATED_TOKENS),
    )
    groups = [Group("g", "t", played)]
    kl = {"name": "k1", "beta": 1.0} if kind == "rtg_token" else "none"  # of 0: it makes tokens differ
    slots = {"credit": kind, "baseline": "none", "kl_in_reward": kl, "filters": ["truncated_mask"]}
    scores = Scores(np.zeros(12, np.float32), np.zeros(12, np.float32))
    got = credited(groups, scores, scale="whiten", **slots)
    assert got.advantages[got.batch.loss_mask].tolist() == close([0.5, 0.5, 0.5, -1.5])
    assert not got.advantages[~got.batch.loss_mask].any()
    got = credited(groups, scores, scale={"name": "whiten", "level": "sequence"}, **slots)
    spread = np.std([1, 0, 9], ddof=1)
    assert got.advantages[got.batch.loss_mask].tolist() == close([(1 - 10 / 3) / spread] * 3 + [-10 / 3 / spread])


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("credit", ["outcome_broadcast", TURN, {"name": "rtg_token", "gamma": 0.7}])
@steady
@given(groups=stateful_groups(), factor=st.floats(0.1, 10), constant=st.floats(-5, 5))
def test_whitening_forgets_where_returns_are_and_how_far_apart(level, credit, groups, factor, constant):
    def moved(t):
        turns = [dataclasses.replace(k, rewards={"correct": factor * k.rewards["correct"]}) for k in t.turns]
        if credit == "outcome_broadcast":
            turns[-1] = dataclasses.replace(turns[-1], rewards={"correct": turns[-1].rewards["correct"] + constant})
        return dataclasses.replace(t, turns=tuple(turns), reward=sum(k.rewards["correct"] for k in turns))

    slots = {"credit": credit, "baseline": "none", "scale": {"name": "whiten", "level": level}}
    other = [dataclasses.replace(g, trajectories=tuple(map(moved, g.trajectories))) for g in groups]
    before, after = (credited(x, **slots).advantages for x in (groups, other))
    assert after == close(before, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    "slots",
    [
        *({"baseline": b, "scale": s, "credit": TURN} for b, s in COMPANIONS[:-1]),
        {"baseline": "group_turn_mean", "scale": "group_turn_std", "credit": "outcome_broadcast"},
        {"baseline": "group_mean", "scale": "group_mean", "credit": "outcome_broadcast"},
        {"baseline": "group_mean", "scale": "nonzero_frac", "credit": "outcome_broadcast"},
        {"baseline": "group_mean", "scale": "whiten", "credit": "outcome_broadcast"},
        {"baseline": "batch_mean", "scale": {"name": "whiten", "level": "sequence"}, "credit": "outcome_broadcast"},
    ],
)
def test_equal_returns_and_empty_batches_give_nothing(slots):
    equal = Group("g", "t", tuple(through("ab", [0.1 + 0.2, 0.0], seed=i) for i in range(3)))
    other = Group("h", "u", tuple(through("ab", [0.3, 0.0], seed=i) for i in range(2)))
    assert credited([equal, other], **slots).advantages.tolist() == close([0] * 20, abs=1e-6)
    assert len(credited([], **slots).advantages) == 0


def test_what_stands_alone_has_no_spread():
    played = (through("ab", [0.0, 1.0]), through("a", [3.0], seed=1))
    groups = [Group("g", "t", played)]
    assert by_turn(credited(groups, credit=TURN, baseline="turn_mean", scale="turn_std"))[1] == 0
    assert by_turn(credited(groups, credit=TURN, baseline="state_leave_one_out", scale="state_std"))[1] == 0


def test_maxrl_is_silent_where_the_mean_is_rounding():
    slots = {"credit": "outcome_broadcast", "baseline": "group_mean", "scale": "group_mean"}
    played = (through("ab", [0.1, 0.2]), through("a", [-0.3], seed=1))
    assert per_trajectory(credited([Group("g", "t", played)], **slots)) == [0, 0]
    assert per_trajectory(credited(groups_of([-3, -1]), **slots)) == [0, 0]


def test_a_group_whose_returns_differ_by_rounding_says_nothing():
    slots = {"credit": "outcome_broadcast", "baseline": "group_mean", "scale": "nonzero_frac"}
    flat = Group("g", "t", (through("ab", [0.1, 0.2]), through("a", [0.3], seed=1)))
    assert per_trajectory(credited([flat, *groups_of([1, 0])], **slots))[2:] == [1, -1]


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "whiten", "turn_std", "state_std", "group_turn_std"])
def test_eps_is_checked(scale):
    with pytest.raises(ConfigError, match=f"scale '{scale}': eps must be at least 1e-12"):
        objective("grpo", scale={"name": scale, "eps": 0.0})


def test_whiten_knows_two_levels():
    with pytest.raises(ConfigError, match="'token' or 'sequence', got 'turn'"):
        objective("grpo", scale={"name": "whiten", "level": "turn"})
