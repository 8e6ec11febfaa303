"""Credit through states that trajectories share."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Batch
from agentrl.objective.reward_side.states import histories, known_nodes, known_states
from agentrl.trajectory import Group
from tests.objective.marked import Case, marked_groups
from tests.objective.play import steady
from tests.objective.turns import named, through

SEEDS = st.integers(0, 2**32 - 1)
close = pytest.approx


def test_what_follows_a_shared_state_is_pooled():
    """A and B meet in state m after different first turns and part again; C never gets there."""
    a = through(["s", "m", "x"], [0.0, 1.0, 2.0])
    b = through(["s", "m"], [0.5, 7.0], seed=1)
    c = through(["s", "y"], [0.25, 4.0], seed=2)
    case = Case.of([Group("g", "t", (a, b, c))])
    assert case.credit("state_pooled").tolist() == [5, 3, 2, 5.5, 7, 4.25, 4]
    assert case.credit("state_pooled", gamma=0.5).tolist() == [2.25, 2, 2, 2.75, 7, 2.25, 4]


def test_others_count_once_by_their_first_visit_and_oneself_by_the_turn():
    """A passes m twice: B meets A's first visit alone, and A's second visit is not pooled with A's first."""
    a = through(["s", "m", "m"], [0.0, 1.0, 2.0])
    b = through(["s", "m"], [0.0, 9.0], seed=1)
    case = Case.of([Group("g", "t", (a, b))])
    assert case.credit("state_pooled").tolist() == [(3 + 9) / 2, 1 + (2 + 9) / 2, 2, (9 + 3) / 2, 9]


def test_a_group_of_one_that_returns_to_a_state_keeps_its_own_return():
    case = Case.of([Group("g", "t", (through(["s", "s", "s"], [1.0, 2.0, 4.0]),))])
    assert case.credit("state_pooled").tolist() == [7, 6, 4]


@steady
@given(marked_groups(), SEEDS, st.sampled_from([1.0, 0.7]))
def test_without_shared_states_it_is_the_turns_own_return(groups, seed, gamma):
    apart = [
        dataclasses.replace(
            g,
            trajectories=tuple(
                named(t, [f"{i}-{k}" for k in range(len(t.turns))]) for i, t in enumerate(g.trajectories)
            ),
        )
        for g in groups
    ]
    case = Case.of(apart, seed, penalised=True)
    assert case.credit("state_pooled", gamma=gamma) == close(case.credit("rtg_turn", gamma=gamma), abs=1e-9)


def test_pooling_keeps_the_mean_and_halves_the_variance():
    """Two trajectories reach the same state and then each tosses a coin: over all four outcomes."""
    credits = []
    for tosses in itertools.product([0.0, 1.0], repeat=2):
        pair = tuple(through(["s", "m"], [0.0, toss], seed=i) for i, toss in enumerate(tosses))
        credits.append(Case.of([Group("g", "t", pair)]).credit("state_pooled")[0])
    assert np.mean(credits) == 0.5
    assert np.var(credits) == 0.125  # a coin's own is .25


def test_ids_are_of_a_group_and_a_turn_without_one_is_alone():
    a, b = through(["s", None, "m"], [0, 0, 0]), through(["m", None], [0, 0], seed=1)
    batch = Batch.from_groups([Group("g", "t", (a, b)), Group("h", "t", (a,))])
    ids = known_states("credit 'x'", batch).tolist()
    assert ids[0] != ids[5]
    assert ids[2] == ids[3]
    assert len(set(ids)) == 7
    assert min(ids) >= 0


def test_histories_reach_as_far_back_as_there_are_turns():
    a, b = through(["s", "t", "s", "t"], [0] * 4), through(["t", "s", "t"], [0] * 3, seed=1)
    batch = Batch.from_groups([Group("g", "t", (a, b))])
    states = known_states("term 'x'", batch)

    def same(length: int) -> list[list[int]]:
        ids = histories(batch, states, length)
        return sorted([np.flatnonzero(ids == i).tolist() for i in set(ids.tolist())])

    assert same(1) == [[0, 2, 5], [1, 3, 4, 6]]
    assert same(2) == [[0], [1, 3, 6], [2, 5], [4]]
    assert same(3) == [[0], [1], [2], [3, 6], [4], [5]]
    assert same(9) == [[i] for i in range(7)]


def test_a_batch_without_any_id_is_refused():
    batch = Batch.from_groups([Group("g", "t", (through([None, None], [0, 1]),))])
    with pytest.raises(ConfigError, match=r"credit 'x'.*state id.*info\['state_id'\]"):
        known_states("credit 'x'", batch)
    with pytest.raises(ConfigError, match=r"credit 'x'.*node id.*branches"):
        known_nodes("credit 'x'", batch)
    empty = Batch.from_groups([])
    assert len(known_states("credit 'x'", empty)) == len(known_nodes("credit 'x'", empty)) == 0
