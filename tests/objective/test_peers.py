"""Which turns are compared with one another, and their statistics."""

from __future__ import annotations

import numpy as np
import pytest

from agentrl.objective import Batch
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.peers import (
    cell_means,
    cell_means_of_others,
    cell_stds,
    divide_by_spread,
    first_visits,
    index_cells,
    or_own,
    turn_numbers,
)
from agentrl.trajectory import Group
from tests.objective.play import episode

close = pytest.approx
CELLS = np.array([3, 0, 3, 3, 0, 1, 0])
X = np.array([1.0, 10, 2, 6, 20, 5, 99])
COUNTED = np.array([True, True, True, True, True, True, False])


def batch_of(*lengths: list[list[int]]) -> Batch:
    """Groups of episodes, given as the tokens of their turns."""
    return Batch.from_groups(
        [
            Group(str(g), "t", tuple(episode([(1, n, 0.0) for n in turns], seed=i) for i, turns in enumerate(group)))
            for g, group in enumerate(lengths)
        ]
    )


def test_statistics_are_over_the_counted_turns_of_a_cell():
    means, known = cell_means(CELLS, X, COUNTED)
    assert means.tolist() == [3, 15, 3, 3, 15, 5, 15]
    assert known.all()
    others, known = cell_means_of_others(CELLS, X, COUNTED)
    assert others[known].tolist() == [4, 20, 3.5, 1.5, 10, 15]
    assert known.tolist() == [True, True, True, True, True, False, True]
    sevens = 7**0.5
    assert cell_stds(CELLS, X, COUNTED).tolist() == close([sevens, 50**0.5, sevens, sevens, 50**0.5, 0, 50**0.5])
    _, known = cell_means(CELLS, X, CELLS != 1)
    assert known.tolist() == (CELLS != 1).tolist()


def test_first_visits_are_first_among_the_counted():
    batch = batch_of([[1, 1, 1, 1], [1, 1]])
    cells = np.array([0, 1, 0, 1, 0, 0])
    counted = np.array([False, True, True, True, True, True])
    is_first, where = first_visits(batch, cells, counted)
    assert is_first.tolist() == [False, True, True, False, True, False]
    assert where[counted].tolist() == [1, 2, 1, 4, 4]


def test_indices_are_compared_within_a_group():
    cells = index_cells(batch_of([[1, 0, 2], [1]], [[1, 1]]))
    assert len(np.unique(cells)) == 5
    assert cells[0] == cells[3]


def test_the_number_of_a_turn_is_that_of_its_first_token():
    batch = batch_of([[2, 0, 1], [0, 1]])
    numbers, has = turn_numbers(batch, Leveled(Level.ACTION, np.array([1.0, 2, 3, 4])))
    assert numbers[has].tolist() == [1, 3, 4]
    assert has.tolist() == [True, False, True, False, True]
    numbers, has = turn_numbers(batch, Leveled(Level.TRAJECTORY, np.array([7.0, 8])))
    assert numbers.tolist() == [7, 7, 7, 8, 8]
    assert has.all()


def test_what_is_not_known_is_the_credit_itself():
    batch = batch_of([[2, 1]])
    baseline, known = Leveled(Level.TURN, np.array([5.0, 6])), np.array([True, False])
    for credit, wanted in (
        (Leveled(Level.TRAJECTORY, np.array([1.0])), [5, 1]),
        (Leveled(Level.TURN, np.array([1.0, 2])), [5, 2]),
        (Leveled(Level.ACTION, np.array([1.0, 2, 3])), [5, 5, 3]),
    ):
        assert or_own(batch, baseline, known, credit).values.tolist() == wanted


def test_no_spread_gives_0():
    batch = batch_of([[1, 1, 1]])
    spread = Leveled(Level.TURN, np.array([2.0, 0, 1e-12]))
    out = divide_by_spread(batch, Leveled(Level.TURN, np.array([4.0, 4, 4])), spread, 0.5)
    assert out.values.tolist() == [1.6, 0, 0]
