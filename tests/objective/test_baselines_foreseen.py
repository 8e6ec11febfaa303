"""Baselines that a greedy rollout, a critic or fresh rollouts give."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.trajectory import Group, Outcome
from tests.objective.play import episode, groups_of, objective, per_trajectory
from tests.objective.turns import by_turn

TURN = {"name": "rtg_turn", "gamma": 1.0}


def method(baseline, credit="outcome_broadcast", **more):
    return objective("reinforce", credit=credit, baseline=baseline, **more)


def credited(objective_, groups, scores=None):
    return objective_.credit(objective_.select(groups), scores or Scores())


def greedy_groups(*greedy: float | None):
    groups = groups_of(*[[1, 0]] * len(greedy))
    failed = episode([(1, 1, 0.0)], outcome=Outcome.FAILED_ENV)
    return [
        dataclasses.replace(g, greedy=failed if r is None else episode([(1, 9, r)]))
        for g, r in zip(groups, greedy, strict=True)
    ]


def test_greedy_baseline():
    assert method("greedy").spec.needs_greedy
    assert per_trajectory(credited(method("greedy"), greedy_groups(1, 0.25, None))) == [0, -1, 0.75, -0.25, 0, 0]
    with pytest.raises(ConfigError, match="no group of this batch has one"):
        credited(method("greedy"), groups_of([1, 0]))


def test_greedy_rollouts_that_all_failed_stop_nothing():
    assert per_trajectory(credited(method("greedy"), greedy_groups(None, None))) == [0, 0, 0, 0]


def test_the_value_of_a_token_or_of_a_turns_first_token():
    groups = [Group("g", "t", (episode([(1, 2, 1.0), (1, 0, 0.0), (1, 1, 3.0)]),))]
    values = np.array([9, 0.5, 0.25, 9, 9, 2], np.float32)
    by_token = method("value", {"name": "rtg_token", "gamma": 0.5}, critic="token_head")
    got = credited(by_token, groups, Scores(values=values))
    assert got.advantages.tolist() == [0, 1.25 - 0.5, 2.5 - 0.25, 0, 0, 3 - 2]
    for credit, returns in (({"name": "rtg_turn", "gamma": 0.5}, [1.75, 3]), ("outcome_broadcast", [4, 4])):
        got = credited(method("value", credit, critic="turn_head"), groups, Scores(values=values))
        assert got.advantages.tolist() == [0, returns[0] - 0.5, returns[0] - 0.5, 0, 0, returns[1] - 2]
    with pytest.raises(ConfigError, match="needs a critic's values"):
        credited(by_token, groups)


def test_measured_values_of_states():
    def measured(values):
        made = episode([(1, 1, 0.0), (1, 2, 1.0)])
        turns = [dataclasses.replace(t, value=v) for t, v in zip(made.turns, values, strict=True)]
        return [Group("g", "t", (dataclasses.replace(made, turns=tuple(turns)),))]

    assert by_turn(credited(method("mc_value", TURN), measured([0.5, 0.75]))) == [0.5, 0.25]
    assert by_turn(credited(method("mc_value", TURN), measured([None, 0.75]))) == [0, 0.25]
    by_token = credited(method("mc_value", {"name": "rtg_token", "gamma": 0.5}), measured([None, 0.75]))
    assert by_token.advantages[by_token.batch.action_mask].tolist() == [0, -0.25, 0.25]
    with pytest.raises(ConfigError, match="no turn of this batch has a value"):
        credited(method("mc_value", TURN), measured([None, None]))


@pytest.mark.parametrize("baseline", ["greedy", "value", "mc_value"])
def test_an_empty_batch_is_no_error(baseline):
    critic = "token_head" if baseline == "value" else "none"
    got = credited(method(baseline, critic=critic), [], Scores(values=np.zeros(0, np.float32)))
    assert len(got.advantages) == 0
