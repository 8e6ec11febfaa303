"""Terms: worked numbers, agreement with the slow twin, and how they join the main advantage."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.objective.component import build
from agentrl.objective.reward_side.term import TERMS
from agentrl.trajectory import Group
from tests.objective import twin_credit as twin
from tests.objective.marked import Case, at_own_tokens, marked_groups
from tests.objective.play import episode, groups_of, objective, per_trajectory, steady
from tests.objective.turns import by_turn, through

SEEDS = st.integers(0, 2**32 - 1)
FLAGS = st.booleans()
close = pytest.approx


def t25() -> list[Group]:
    a = through(["s0", "s1", "s2"], [0.0, 0.0, 1.0])
    b = through(["s0", "s1", "s1"], [0.0, 0.0, 0.0], seed=1)
    return [Group("g", "t", (a, b))]


def test_t25_gigpo_turns_against_their_state():
    case = Case.of(t25())
    assert case.credit("rtg_turn", gamma=0.95).tolist() == close([0.9025, 0.95, 1, 0, 0, 0])
    assert case.term("anchor_state", gamma=0.95, std=False).tolist() == close(
        [0.45125, 0.633333, 0, -0.45125, -0.316667, -0.316667], abs=1e-6
    )
    assert case.term("anchor_state", gamma=0.95).tolist() == close(
        [0.707106, 1.154698, 0, -0.707106, -0.577349, -0.577349], abs=1e-6
    )


def test_t25_gigpo_without_std_in_all():
    """The episode's part counts each trajectory once, not once for each of its turns."""
    method = objective("gigpo", scale="none", terms={"std": False})
    credited = method.credit(method.select(t25()), Scores())
    wanted = [0.95125, 1.133333, 0.5, -0.95125, -0.816667, -0.816667]
    assert by_turn(credited) == close(wanted, abs=1e-6)


def test_t25_gigpo_with_std_in_all():
    method = objective("gigpo")
    credited = method.credit(method.select(t25()), Scores())
    episode_part = 0.707106
    state_part = [0.707106, 1.154698, 0, -0.707106, -0.577349, -0.577349]
    wanted = [s + (episode_part if k < 3 else -episode_part) for k, s in enumerate(state_part)]
    assert by_turn(credited) == close(wanted, abs=2e-6)


def test_anchor_state_of_a_state_that_was_visited_once_is_0():
    case = Case.of([Group("g", "t", (through(["a", "b"], [1, 5]), through(["c", None], [2, 8], seed=1)))])
    assert case.term("anchor_state").tolist() == [0, 0, 0, 0]


def test_anchor_state_tells_histories_apart():
    """Both pass m, one from s and one from t: with a history of two they have nothing in common."""
    a, b = through(["s", "m"], [0.0, 1.0]), through(["t", "m"], [0.0, 0.0], seed=1)
    case = Case.of([Group("g", "t", (a, b))])
    assert case.term("anchor_state", std=False).tolist() == [0, 0.5, 0, -0.5]
    assert case.term("anchor_state", std=False, history=2).tolist() == [0, 0, 0, 0]


@steady
@given(marked_groups(), SEEDS, FLAGS, st.integers(1, 3), FLAGS)
def test_anchor_state_agrees_with_the_twin(groups, seed, std, history, penalised):
    case = Case.of(groups, seed, penalised=penalised)
    rows = {g: twin.anchor_state(group, 0.9, divide=std, length=history) for g, group in enumerate(case.steps)}
    got = case.term("anchor_state", gamma=0.9, std=std, history=history, weight=0.5)
    assert (2 * got).tolist() == close(at_own_tokens(case.steps, rows), abs=1e-6)


def test_turn_relative_compares_a_turns_own_reward_at_its_index():
    """Three, three and two turns; the last turn of each gets none, and stays among the peers."""
    rewards = ([1.0, 0.0, 9.0], [0.0, 4.0, 9.0], [0.5, 2.0])
    group = tuple(episode([(1, 1, r) for r in rs], seed=i, part="step") for i, rs in enumerate(rewards))
    case = Case.of([Group("g", "t", group)])
    assert case.term("turn_relative", std=False).tolist() == [0.5, -2, 0, -0.5, 2, 0, 0, 0]
    assert case.term("turn_relative").tolist() == close([1, -1, 0, -1, 1, 0, 0, 0], abs=1e-5)
    got = case.term("turn_relative", std=False, last=True, weight=2.0)
    assert got.tolist() == [1, -4, 0, -1, 4, 0, 0, 0]


def test_turn_relative_gives_the_last_turn_one_on_request():
    group = tuple(episode([(1, 1, r)], seed=i, part="step") for i, r in enumerate([1.0, 0.0]))
    case = Case.of([Group("g", "t", group)])
    assert case.term("turn_relative", std=False).tolist() == [0, 0]
    assert case.term("turn_relative", std=False, last=True).tolist() == [0.5, -0.5]


@steady
@given(marked_groups(), SEEDS, FLAGS, FLAGS, st.sampled_from(["all", "process", "outcome"]))
def test_turn_relative_agrees_with_the_twin(groups, seed, std, last, parts):
    case = Case.of(groups, seed, penalised=True)  # penalties belong to no turn's own reward
    names = {"all": ("step", "correct"), "process": ("step",), "outcome": ("correct",)}[parts]
    rows = {}
    for g, group in enumerate(groups):
        own = [[sum(turn.rewards[n] for n in names) for turn in t.turns] for t in group.trajectories]
        rows[g] = twin.turn_relative(own, divide=std, last=last)
    got = case.term("turn_relative", std=std, last=last, parts=parts)
    assert got.tolist() == close(at_own_tokens(case.steps, rows), abs=1e-6)


def test_mt_grpo_adds_the_turns_part_to_the_outcomes():
    """Two turns; the tool's use earns a step reward at the first, the answer the outcome at the second."""

    def played(step: float, correct: float, seed: int):
        made = episode([(1, 2, 0.0), (1, 1, 0.0)], seed=seed)
        turns = (
            dataclasses.replace(made.turns[0], rewards={"step": step}),
            dataclasses.replace(made.turns[1], rewards={"correct": correct}),
        )
        return dataclasses.replace(made, turns=turns, reward=step + correct)

    group = Group("g", "t", tuple(played(s, c, i) for i, (s, c) in enumerate([(1, 1), (1, 0), (0, 0), (0, 1)])))
    method = objective("mt_grpo")
    got = by_turn(method.credit(method.select([group]), Scores()))
    z = 0.5 / np.std([1, 1, 0, 0], ddof=1)
    assert got == close([2 * z, z, 0, -z, -2 * z, -z, 0, z], abs=1e-5)


def test_t46_a_teachers_opinion_of_each_token():
    case = Case.of([Group("g", "t", (episode([(1, 2, 0.0), (2, 1, 1.0)]),))])
    mask = case.batch.action_mask
    teacher, policy = (np.full(len(mask), x, np.float32) for x in (7.0, -7.0))
    teacher[mask], policy[mask] = [-0.5, -2, -0.1], [-0.7, -0.5, -0.1]
    case = dataclasses.replace(case, scores=Scores(logprobs=policy, teacher=teacher))
    assert case.term("teacher").tolist() == close([0.2, -1.5, 0], abs=1e-6)
    assert -np.mean(case.term("teacher")) == close(0.433333, abs=1e-6)
    assert case.term("teacher", coef=0.5).tolist() == close([0.1, -0.75, 0], abs=1e-6)
    for scores in (Scores(logprobs=policy), Scores(teacher=teacher), Scores()):
        with pytest.raises(ConfigError, match=r"'teacher'.*give the learner a teacher"):
            dataclasses.replace(case, scores=scores).term("teacher")


def test_tree_intra_compares_within_the_tree_and_the_rest_across():
    """Two trees of two branches, one lone trajectory."""
    rewards, roots = [1.0, 0.0, 1.0, 0.5, 0.0], ["a", "a", "b", "b", None]
    group = groups_of(rewards)[0]
    trajectories = tuple(
        dataclasses.replace(t, turns=(dataclasses.replace(t.turns[0], node_id=root),))
        for t, root in zip(group.trajectories, roots, strict=True)
    )
    group = dataclasses.replace(group, trajectories=trajectories)
    method = objective("dr_grpo", terms={"name": "tree_intra", "std": False, "weight": 2.0})
    intra = np.array([0.5, -0.5, 0.25, -0.25, 0])
    inter = np.array(rewards) - 0.5
    got = per_trajectory(method.credit(method.select([group]), Scores()))
    assert got == close((inter + 2 * intra).tolist())
    assert not method.spec.advantages_vary


@steady
@given(marked_groups(), SEEDS, FLAGS)
def test_tree_intra_agrees_with_the_twin(groups, seed, std):
    case = Case.of(groups, seed, penalised=True)
    rows = {
        g: [[x] * len(steps) for x, steps in zip(twin.tree_intra(group, divide=std), group, strict=True)]
        for g, group in enumerate(case.steps)
    }
    assert case.term("tree_intra", std=std).tolist() == close(at_own_tokens(case.steps, rows), abs=1e-6)


@pytest.mark.parametrize("name", ["anchor_state", "turn_relative", "tree_intra"])
@steady
@given(groups=marked_groups(), seed=SEEDS)
def test_what_is_compared_sums_to_0_over_all_turns_or_trajectories(name, groups, seed):
    case = Case.of(groups, seed)
    last = {"last": True} if name == "turn_relative" else {}
    component = build("terms", {"name": name, **last}, TERMS)
    assert component(case.inputs, case.rewards).values.sum() == close(0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_no_trajectories_is_no_error(name):
    empty = Case.of([])
    nothing = np.zeros(0, np.float32)
    empty = dataclasses.replace(empty, scores=Scores(logprobs=nothing, teacher=nothing))
    assert empty.term(name).tolist() == []


def test_wrong_parameters_are_refused():
    for name, parameter, value in (
        ("anchor_state", "gamma", 1.5),
        ("anchor_state", "weight", -1.0),
        ("anchor_state", "history", 0),
        ("turn_relative", "weight", -1.0),
        ("turn_relative", "parts", "step"),
        ("teacher", "coef", -1.0),
        ("tree_intra", "weight", -1.0),
    ):
        with pytest.raises(ConfigError, match=f"{name}.*{parameter}"):
            build("terms", {"name": name, parameter: value}, TERMS)


def test_states_and_branches_must_be_there():
    case = Case.of([Group("g", "t", (through([None], [1.0]), through([None], [0.0], seed=1)))])
    with pytest.raises(ConfigError, match=r"anchor_state.*state id"):
        case.term("anchor_state")
    with pytest.raises(ConfigError, match=r"tree_intra.*node id"):
        case.term("tree_intra")
