"""Baselines: each against its slow twin, and what must hold for any episodes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Objective, Scores
from agentrl.trajectory import Group, Outcome
from tests.objective import twin, twin_turns
from tests.objective.play import episode, groups_of, objective, per_trajectory, steady
from tests.objective.turns import (
    by_turn,
    first_of_turns,
    moves_of,
    named,
    returns_to_go,
    stateful_groups,
    through,
    totals_of,
)

close = pytest.approx
OF_GROUP = ("group_mean", "leave_one_out", "len_weighted", "second_best")
OF_CREDIT = ("turn_mean", "state_mean", "group_turn_mean")
OF_RETURNS = ("turn_leave_one_out", "state_leave_one_out")  # discounted by themselves, whatever the credit
OF_TURNS = (*OF_CREDIT, *OF_RETURNS)
TURN = {"name": "rtg_turn", "gamma": 1.0}


def method(baseline, credit="outcome_broadcast", **more):
    return objective("reinforce", credit=credit, baseline=baseline, **more)


def credited(objective_, groups, scores=None, memory=None):
    return objective_.credit(objective_.select(groups), scores or Scores(), memory)


@pytest.mark.parametrize("baseline", OF_GROUP)
@steady
@given(groups=stateful_groups(shortest_turn=1))
def test_group_baselines_agree_with_the_twin(baseline, groups):
    penalties = [[0.0] * t.n_action_tokens for group in groups for t in group.trajectories]
    wanted = twin.advantages(groups, penalties, kind="outcome_broadcast", gamma=1.0, baseline=baseline, scale="none")
    got = credited(method(baseline), groups)
    assert got.advantages[got.batch.action_mask] == close([a for row in wanted for a in row], abs=1e-9)


@pytest.mark.parametrize("baseline", OF_TURNS)
@pytest.mark.parametrize("gamma", [1.0, 0.7])
@steady
@given(groups=stateful_groups())
def test_turn_baselines_agree_with_the_twin(baseline, gamma, groups):
    chosen = {"name": baseline, "gamma": gamma} if baseline in OF_RETURNS else baseline
    got = by_turn(credited(method(chosen, {"name": "rtg_turn", "gamma": gamma}), groups))
    credits = [returns_to_go(t, gamma) for group in groups for t in group.trajectories]
    wanted = twin_turns.advantages(moves_of(groups, credits), totals_of(groups), baseline, "none")
    assert len(got) == len(wanted)
    for mine, other in zip(got, wanted, strict=True):
        assert mine is None or mine == close(other, abs=1e-9)


@pytest.mark.parametrize("baseline", OF_CREDIT)
@steady
@given(groups=stateful_groups(shortest_turn=1))
def test_where_the_credit_of_tokens_differs_a_turn_is_compared_by_its_first_token(baseline, groups):
    got = credited(method(baseline, {"name": "rtg_token", "gamma": 0.7}), groups)
    rows = [twin.credit(t, [0.0] * t.n_action_tokens, "rtg_token", 0.7) for group in groups for t in group.trajectories]
    tokens = [twin.action_tokens(t) for group in groups for t in group.trajectories]
    credits = [
        [next(c for c, (k, _, _) in zip(row, spots, strict=True) if k == turn) for turn in range(spots[-1][0] + 1)]
        for row, spots in zip(rows, tokens, strict=True)
    ]
    wanted = twin_turns.advantages(moves_of(groups, credits), totals_of(groups), baseline, "none")
    assert first_of_turns(got) == close(wanted, abs=1e-9)


def test_turns_without_tokens_have_no_credit_to_compare_where_tokens_differ():
    discounted = {"name": "rtg_token", "gamma": 0.5}
    played = (episode([(1, 2, 0.0), (1, 1, 4.0)]), episode([(1, 1, 2.0), (1, 0, 0.0)], seed=1))
    got = credited(method("turn_mean", discounted), [Group("g", "t", played)])
    assert got.advantages[got.batch.action_mask].tolist() == [-0.5, 0.5, 0, 0.5]
    got = credited(method("group_turn_mean", discounted), [Group("g", "t", played)])
    mean = (1 + 4 + 2) / 3
    assert got.advantages[got.batch.action_mask].tolist() == close([1 - mean, 2 - mean, 4 - mean, 2 - mean])


def test_states_are_compared_within_the_group_and_by_first_visits_of_others():
    a = through("st", [0.0, 1.0])
    b = through("stt", [1.0, 0.0, 2.0], seed=1)
    c = through("su", [0.0, 0.0], seed=2)
    other = (through("st", [9.0, 9.0], group="h", seed=3), through("x", [0.0], group="h", seed=4))
    groups = [Group("g", "t", (a, b, c)), Group("h", "t", other)]
    #       G of a: 1 1    of b: 3 2 2   of c: 0 0   of other: 18 9, 0
    got = by_turn(credited(method("state_leave_one_out", TURN), groups))
    assert got[:2] == close([1 - 1.5, 1 - 2])  # s: others 3 and 0; t: b's first visit alone
    assert got[2:5] == close([3 - 0.5, 2 - 1, 2 - 1])
    assert got[5:7] == close([0 - 2, 0 - 1.5])  # u: nobody else; at index 1 the others have 1 and 2
    assert got[7:] == close([18 - 0, 9 - 0, 0 - 18])  # t: nobody in state or at index: the other's whole return
    got = by_turn(credited(method("state_mean", TURN), groups))
    assert got == close([1 - 4 / 3, 1 - 5 / 3, 3 - 4 / 3, 2 - 5 / 3, 2 - 5 / 3, -4 / 3, 0, 0, 0, 0])


def test_what_others_got_is_compared_with_even_where_the_credit_was_pooled():
    """A pooled credit of the others holds this trajectory's own return: what is taken off must not."""
    played = (through("st", [0.0, 5.0]), through("st", [0.0, 1.0], seed=1))
    for baseline in OF_RETURNS:
        got = by_turn(credited(method(baseline, {"name": "state_pooled"}), [Group("g", "t", played)]))
        assert got == [3 - 1, 5 - 1, 3 - 5, 1 - 5]


def test_a_turn_that_nobody_else_reached_is_compared_with_whole_returns():
    played = (through("abc", [1.0, 1.0, 1.0]), through("a", [4.0], seed=1), through("ad", [1.0, 1.0], seed=2))
    for baseline in OF_RETURNS:
        got = by_turn(credited(method(baseline, TURN), [Group("g", "t", played)]))
        assert got[:3] == [3 - 3, 2 - 1, 1 - 3]


def test_a_state_that_one_trajectory_alone_keeps_visiting_is_compared_with_nobody():
    played = (through("ss", [1.0, 0.0]), through("x", [0.0], seed=1))
    assert by_turn(credited(method("state_mean", TURN), [Group("g", "t", played)])) == [0, 0, 0]


def test_a_turn_without_a_state_is_in_a_state_of_its_own():
    played = (through([None, "s"], [0.0, 1.0]), through([None, "s"], [0.0, 0.0], seed=1))
    assert by_turn(credited(method("state_mean", TURN), [Group("g", "t", played)])) == [0, 0.5, 0, -0.5]
    loo = by_turn(credited(method("state_leave_one_out", TURN), [Group("g", "t", played)]))
    assert loo == [1, 1, -1, -1]  # at index 0 by turn index
    unnamed = [Group("g", "t", (episode([(1, 1, 1.0)]), episode([(1, 1, 0.0)], seed=1)))]
    for baseline in ("state_mean", "state_leave_one_out"):
        with pytest.raises(ConfigError, match=f"baseline '{baseline}' compares turns .* no turn .* state id"):
            credited(method(baseline, TURN), unnamed)


def shifted(groups, constant):
    """All returns raised by a constant, at the last turns."""

    def raised(t):
        last = dataclasses.replace(t.turns[-1], rewards={"correct": t.turns[-1].rewards["correct"] + constant})
        return dataclasses.replace(t, turns=(*t.turns[:-1], last), reward=t.reward + constant)

    return [dataclasses.replace(g, trajectories=tuple(map(raised, g.trajectories))) for g in groups]


@pytest.mark.parametrize("baseline", ["batch_mean", *OF_GROUP, *OF_TURNS])
@steady
@given(groups=stateful_groups(), constant=st.floats(-5, 5))
def test_a_constant_added_to_all_returns_changes_nothing(baseline, groups, constant):
    for credit in ("outcome_broadcast", TURN):
        if credit is TURN and baseline == "second_best":
            continue
        before = credited(method(baseline, credit), groups).advantages
        assert credited(method(baseline, credit), shifted(groups, constant)).advantages == close(before, abs=1e-9)


def any_method(baseline):
    """With the credit it is for, and returns that it can count."""
    credit = TURN if baseline in OF_TURNS else "outcome_broadcast"
    return method(baseline, credit, shape="threshold" if baseline == "beta_tracker" else "none")


def split(credited_):
    """The advantages of each trajectory's tokens."""
    batch = credited_.batch
    return np.split(credited_.advantages[batch.action_mask], np.cumsum(batch.action_counts)[:-1])


@pytest.mark.parametrize("baseline", ["batch_mean", *OF_GROUP, *OF_TURNS, "ema", "beta_tracker"])
@steady
@given(groups=stateful_groups(), data=st.data())
def test_permuting_the_members_permutes_their_advantages(baseline, groups, data):
    orders = [data.draw(st.permutations(range(len(g.trajectories)))) for g in groups]
    permuted = [
        dataclasses.replace(g, trajectories=tuple(g.trajectories[j] for j in order))
        for g, order in zip(groups, orders, strict=True)
    ]
    before, after = (split(credited(any_method(baseline), x)) for x in (groups, permuted))
    first = 0
    for order in orders:
        for place, j in enumerate(order):
            assert after[first + place] == close(before[first + j], abs=1e-9)
        first += len(order)


@pytest.mark.parametrize("baseline", [*OF_GROUP, *OF_TURNS])
def test_a_group_of_one_gets_0(baseline):
    alone = Group("g", "t", (through("ab", [1.0, 2.0], acted=3),))
    pair = Group("h", "u", (through("a", [5.0], acted=4, seed=1), through("a", [0.0], seed=2)))
    got = credited(any_method(baseline), [alone, pair])
    assert got.advantages[got.batch.token_trajectory == 0].tolist() == [0] * 8
    assert got.advantages.any()


@pytest.mark.parametrize("baseline", [*OF_GROUP, "group_turn_mean"])
def test_whitening_leaves_a_group_of_one_at_0(baseline):
    alone = Group("g", "t", (through("ab", [1.0, 2.0], acted=3),))
    pair = Group("h", "u", (through("a", [5.0], acted=4, seed=1), through("a", [0.0], seed=2)))
    got = credited(
        objective("reinforce", baseline=baseline, credit=any_method(baseline).spec.as_dict()["credit"], scale="whiten"),
        [alone, pair],
    )
    assert got.advantages[got.batch.token_trajectory == 0].tolist() == [0] * 8
    assert got.advantages.any()


def redrawn(group, data):
    """The same turns with other token counts and segments."""

    def one(t):
        lengths = [data.draw(st.integers(1, 4)) for _ in t.turns]
        turns = [(1, n, turn.rewards["correct"]) for n, turn in zip(lengths, t.turns, strict=True)]
        cuts = data.draw(st.sets(st.integers(0, len(turns) - 1)))
        made = episode(turns, group=t.group_id, seed=t.seed, new_segment_at=sorted(cuts))
        return named(made, [turn.state_id for turn in t.turns])

    return dataclasses.replace(group, trajectories=tuple(map(one, group.trajectories)))


@pytest.mark.parametrize("baseline", ["batch_mean", *[b for b in OF_GROUP if b != "len_weighted"], *OF_TURNS])
@steady
@given(groups=stateful_groups(shortest_turn=1), data=st.data())
def test_token_counts_and_segments_do_not_count(baseline, groups, data):
    before = by_turn(credited(any_method(baseline), groups))
    assert by_turn(credited(any_method(baseline), [redrawn(g, data) for g in groups])) == before


@pytest.mark.parametrize("baseline", ["batch_mean", *OF_GROUP, *OF_TURNS])
def test_masked_trajectories_stay_in_the_statistics(baseline):
    def one(state, reward, seed, **more):
        return named(episode([(1, 2, reward), (1, 1, 0.0)], seed=seed, **more), [state, "end"])

    cut = one("a", 1.0, 0, outcome=Outcome.TRUNCATED_TURNS)
    group = Group("g", "t", (cut, one("a", 0.0, 1), one("b", 0.5, 2)))
    whole = credited(any_method(baseline), [group])
    masking = dataclasses.replace(
        any_method(baseline).spec, filters=objective("grpo", filters=["truncated_mask"]).spec.filters
    )
    masked = credited(Objective(masking), [group])
    assert np.array_equal(masked.advantages, whole.advantages * masked.batch.loss_mask)
    assert not masked.advantages[masked.batch.token_trajectory == 0].any()


@pytest.mark.parametrize("baseline", ["batch_mean", "ema", "beta_tracker", *OF_GROUP, *OF_TURNS])
def test_an_empty_batch_is_no_error(baseline):
    assert len(credited(any_method(baseline), []).advantages) == 0


@pytest.mark.parametrize("baseline", [*OF_GROUP, *OF_TURNS])
def test_a_trajectory_without_turns_gets_nothing_and_breaks_nothing(baseline):
    whole, other = through("ab", [0.0, 1.0]), through("ab", [0.0, 0.0], seed=1)
    silent = dataclasses.replace(whole.segments[0], action_mask=np.zeros(4, bool))
    nothing = dataclasses.replace(whole, turns=(), segments=(silent,), reward=-1.0)
    got = credited(any_method(baseline), [Group("g", "t", (whole, nothing, other))])
    of_wholes = {
        "group_mean": [1, 0],
        "leave_one_out": [1.5, 0],
        "len_weighted": [0.5, -0.5],
        "second_best": [1, 0],
    }.get(baseline, [0.5, -0.5] if baseline.endswith("_mean") else [1, -1])
    assert by_turn(got) == close([of_wholes[0]] * 2 + [of_wholes[1]] * 2)


def test_the_mean_weighted_by_lengths_follows_them():
    played = (episode([(5, 3, 1.0)]), episode([(1, 1, 0.0)], seed=1))
    got = credited(method("len_weighted"), [Group("g", "t", played)])
    assert per_trajectory(got) == close([0.25, -0.75])


def test_second_best_is_about_the_best_one_alone():
    assert per_trajectory(credited(method("second_best"), groups_of([0, 3, 1], [-2, -5], [4, 4, 1], [7]))) == [
        *(0, 2, 0),
        *(3, 0),
        *(0, 0, 0),
        0,
    ]


def test_a_baseline_counts_the_parts_that_the_credit_counts():
    def one(outcome, process, seed):
        made = episode([(1, 1, 0.0), (1, 1, 0.0)], seed=seed)
        turns = (
            dataclasses.replace(made.turns[0], rewards={"step": process}),
            dataclasses.replace(made.turns[1], rewards={"correct": outcome}),
        )
        return dataclasses.replace(made, turns=turns, reward=outcome + process)

    groups = [Group("g", "t", (one(1.0, 8.0, 0), one(0.0, 4.0, 1)))]
    for parts, wanted in (("outcome", 0.5), ("process", 2), ("all", 2.5)):
        got = credited(method("group_mean", {"name": "outcome_broadcast", "parts": parts}), groups)
        assert per_trajectory(got) == [wanted, -wanted]
