"""Shapes of rewards and penalties at tokens: what they add, where it stands, and what they refuse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.objective.reward_side.rewards import Parts, RewardInputs
from agentrl.trajectory import Group
from tests.objective import twin
from tests.objective.play import episode, groups_of, objective, steady
from tests.objective.turns import by_turn, stateful_groups

close = pytest.approx


def shaped(groups, *steps):
    """The parts after these steps, and the batch."""
    method = objective("reinforce", shape=list(steps), baseline="group_mean")
    batch = method.select(groups)
    x, parts = RewardInputs(batch, Scores(), {}), Parts.of(batch)
    for step in method.spec.shape:
        parts = step(x, parts)
    return batch, parts


def column(parts, name):
    return parts.values[:, parts.names.index(name)].tolist()


def test_what_is_known_at_the_end_stands_at_the_last_turn_as_an_outcome():
    played = (episode([(9, 3, 0.5), (9, 4, 0.25)]), episode([(1, 5, 1.0)], seed=1))
    _, parts = shaped([Group("g", "t", played)], {"name": "overlong_soft", "max_length": 8, "cache": 4})
    assert parts.kinds == ("outcome", "outcome")
    assert column(parts, "correct") == [0.5, 0.25, 1]
    assert column(parts, "overlong") == [0, -0.75, -0.25]  # 7 and 5 sampled tokens; observed ones do not count
    method = objective(
        "reinforce",
        shape={"name": "overlong_soft", "max_length": 8, "cache": 4},
        baseline="none",
        credit={"name": "rtg_turn", "gamma": 1.0},
    )
    assert by_turn(method.credit(method.select([Group("g", "t", played)]), Scores())) == [0, -0.5, 0.75]


def test_length_penalty_is_relative_to_the_group():
    a = episode([(2, 4, 1.0)])  # 4 sampled, 2 observed, 1 turn
    b = episode([(1, 1, 0.0), (3, 1, 0.0)], seed=1)  # 2, 4, 2
    other = episode([(5, 10, 1.0)], group="h", seed=2)
    groups = [Group("g", "t", (a, b)), Group("h", "u", (other,))]
    for weights, wanted in (
        ({"tokens": 0.5}, [-0.25, 0, -0.125, -0.5]),
        ({"observed": 0.5}, [-0.125, 0, -0.25, -0.5]),
        ({"turns": 0.5}, [-0.125, 0, -0.25, -0.5]),
        ({"tokens": 0.5, "observed": 1.0, "turns": 2.0}, [-0.25 - 0.25 - 0.5, 0, -0.125 - 0.5 - 1, -3.5]),
    ):
        _, parts = shaped(groups, {"name": "length_penalty", **weights})
        assert column(parts, "length") == close(wanted)
    # after an earlier step the mean is over what that made of the rewards
    _, parts = shaped(groups, {"name": "threshold", "at": 0.0}, {"name": "length_penalty", "tokens": 0.5})
    assert column(parts, "length") == close([-0.5, 0, -0.25, -0.5])


def test_a_group_that_earns_nothing_is_not_paid_for_length():
    _, parts = shaped(groups_of([-1, -3], [0, 0]), {"name": "length_penalty", "tokens": 1.0, "observed": 1.0})
    assert column(parts, "length") == [0, 0, 0, 0]


def two_parts(rewards):
    """Episodes of turns with parts "a" and "b"."""
    made = []
    for i, turns in enumerate(rewards):
        t = episode([(1, 2, a + b) for a, b in turns], seed=i)
        parts = [
            dataclasses.replace(turn, rewards={"a": a, "b": b}) for turn, (a, b) in zip(t.turns, turns, strict=True)
        ]
        made.append(dataclasses.replace(t, turns=tuple(parts), reward_kinds={"a": "outcome", "b": "process"}))
    return Group("g", "t", tuple(made))


PAIRS = st.tuples(st.sampled_from([0.0, 1.0, 0.3]), st.sampled_from([0.0, 10.0, -5.0]))


@steady
@given(st.lists(st.lists(PAIRS, min_size=1, max_size=3), min_size=1, max_size=4))
def test_each_part_is_divided_by_the_std_of_its_totals(rewards):
    _, parts = shaped([two_parts(rewards)], "per_reward_std")
    assert parts.kinds == ("outcome", "process")
    for p in range(2):
        spread = twin.std([sum(turn[p] for turn in turns) for turns in rewards])
        wanted = [turn[p] / (spread + 1e-4) if spread > 1e-9 else 0.0 for turns in rewards for turn in turns]
        assert parts.values[:, p].tolist() == close(wanted)


@steady
@given(st.lists(st.lists(PAIRS, min_size=1, max_size=3), min_size=2, max_size=4), st.floats(0.1, 50))
def test_no_part_drowns_another(rewards, factor):
    louder = [[(a, b * factor) for a, b in turns] for turns in rewards]
    shape = {"name": "per_reward_std", "eps": 1e-12}
    method = objective("reinforce", shape=shape, credit="outcome_broadcast", baseline="group_mean")
    before, after = (method.credit(method.select([two_parts(x)]), Scores()).advantages for x in (rewards, louder))
    assert after == close(before, abs=1e-4)


def test_threshold_replaces_all_parts():
    group = two_parts([[(0.7, 0.0), (0.2, 0.0), (0.1, 0.0)], [(0.7, 0.2)], [(0.0, 1.5)]])
    _, parts = shaped([group], "threshold")
    assert parts.names == ("threshold",)
    assert parts.kinds == ("outcome",)
    assert parts.values[:, 0].tolist() == [0, 0, 1, 0, 1]  # .7 + .2 + .1 reaches 1
    _, parts = shaped([group], {"name": "threshold", "at": -1e9})
    assert parts.values[:, 0].tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    "step",
    [
        {"name": "overlong_soft", "max_length": 4, "cache": 2},
        {"name": "length_penalty", "tokens": 1.0},
        "per_reward_std",
        "threshold",
    ],
)
@steady
@given(groups=stateful_groups())
def test_a_shape_keeps_the_batch_and_what_it_was_given(step, groups):
    batch = objective("reinforce").select(groups)
    given_parts = Parts.of(batch)
    kept = given_parts.values.copy()
    objective("reinforce", shape=step, baseline="group_mean").spec.shape[0](
        RewardInputs(batch, Scores(), {}), given_parts
    )
    assert np.array_equal(given_parts.values, kept)
    empty, parts = shaped([], step)
    assert parts.values.shape[0] == empty.n_trajectories == 0


@pytest.mark.parametrize(
    ("slot", "choice", "says"),
    [
        ("shape", {"name": "overlong_soft", "max_length": 10, "cache": 0}, "cache must be at least 1, got 0"),
        (
            "shape",
            {"name": "overlong_soft", "max_length": 10, "cache": 11},
            r"max_length must be in \[11, inf\], got 10",
        ),
        ("shape", "overlong_soft", "needs the parameter 'max_length'"),
        ("shape", {"name": "length_penalty", "turns": -0.1}, "turns must be at least 0"),
        ("shape", {"name": "per_reward_std", "eps": 0.0}, "eps must be at least"),
        ("kl_in_reward", {"name": "adaptive_k1", "initial": 0.0}, "initial must be at least"),
        ("kl_in_reward", {"name": "adaptive_k1", "horizon": -1.0}, "horizon must be at least"),
        ("kl_in_reward", {"name": "teacher", "coef": -1.0}, "coef must be at least 0"),
    ],
)
def test_parameters_are_checked(slot, choice, says):
    with pytest.raises(ConfigError, match=says):
        objective("reinforce", **{slot: choice})


def test_penalties_say_whose_log_probs_they_need():
    adaptive, taught = (objective("reinforce", kl_in_reward=k).spec for k in ("adaptive_k1", "teacher"))
    assert (adaptive.needs_reference, adaptive.needs_teacher, adaptive.needs_logprobs) == (True, False, True)
    assert (taught.needs_reference, taught.needs_teacher, taught.needs_logprobs) == (False, True, True)
    idle = objective("reinforce", kl_in_reward={"name": "teacher", "coef": 0.0})
    assert not idle.spec.needs_teacher
    batch = idle.select(groups_of([1]))
    assert idle.credit(batch, Scores()).advantages.tolist() == [0] * 5
    for name, says in (
        ("adaptive_k1", "of the policy and of a reference"),
        ("teacher", "of the policy and of a teacher"),
    ):
        method = objective("reinforce", kl_in_reward=name)
        with pytest.raises(ConfigError, match=f"kl_in_reward '{name}' needs log-probs {says}"):
            method.credit(batch, Scores(logprobs=np.zeros(5, np.float32)))


def test_penalties_add_up():
    method = objective(
        "reinforce",
        baseline="none",
        kl_in_reward=[{"name": "k1", "beta": 0.5}, {"name": "teacher", "coef": 2.0}],
        credit={"name": "rtg_token", "gamma": 0.0},
    )
    batch = method.select(groups_of([0], length=2))
    logprobs, reference, teacher = (np.full(4, v, np.float32) for v in (-1.0, -1.5, -0.75))
    got = method.credit(batch, Scores(logprobs, reference, teacher))
    assert got.advantages[batch.action_mask].tolist() == close([-0.25 + 0.5] * 2)
