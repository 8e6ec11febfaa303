"""Credits: agreement with the slow twin, and what holds for all of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Batch, Scores
from agentrl.objective.component import build
from agentrl.objective.reward_side.credit import CREDITS
from agentrl.trajectory import Group
from tests.objective import twin_credit as twin
from tests.objective.marked import Case, at_own_tokens, at_tokens, marked_groups
from tests.objective.play import episode, objective, steady

SEEDS = st.integers(0, 2**32 - 1)
close = pytest.approx
EVERY = [
    {"name": "outcome_broadcast"},
    {"name": "rtg_token", "gamma": 0.9},
    {"name": "rtg_turn", "gamma": 0.9},
    {"name": "gae_token", "gamma": 0.9, "lam": 0.8},
    {"name": "gae_length", "gamma": 0.9, "alpha": 0.3},
    {"name": "gae_turn", "gamma": 0.9, "lam": 0.8},
    {"name": "gae_bilevel", "gamma": 0.9, "lam": 0.8, "gamma_hi": 0.7, "lam_hi": 0.6},
    {"name": "mc_turn", "gamma": 0.9},
    {"name": "tree"},
    {"name": "state_pooled", "gamma": 0.9},
    {"name": "state_values", "gamma": 0.9},
]
OF_TOKENS = {
    "rtg_token": lambda steps: twin.rtg_token(steps, 0.9),
    "gae_token": lambda steps: twin.gae_token(steps, 0.9, 0.8),
    "gae_length": lambda steps: twin.gae_length(steps, 0.9, 0.3),
    "gae_bilevel": lambda steps: twin.gae_bilevel(steps, 0.9, 0.8, 0.7, 0.6),
}
OF_TURNS = {
    "outcome_broadcast": twin.outcome,
    "rtg_turn": lambda steps: twin.rtg_turn(steps, 0.9),
    "gae_turn": lambda steps: twin.gae_turn(steps, 0.9, 0.8),
    "mc_turn": lambda steps: twin.mc_turn(steps, 0.9),
}
OF_GROUPS = {
    "tree": twin.tree,
    "state_pooled": lambda group: twin.state_pooled(group, 0.9),
    "state_values": lambda group: twin.state_values(group, 0.9),
}


def wanted(name: str, case: Case) -> list[float]:
    """What the twin credits every action token with."""
    flat = [steps for group in case.steps for steps in group]
    if name in OF_TOKENS:
        return [x for steps in flat for x in OF_TOKENS[name](steps)]
    if name in OF_TURNS:
        return [x for steps in flat for x in at_tokens(steps, OF_TURNS[name](steps))]
    return at_own_tokens(case.steps, {g: OF_GROUPS[name](group) for g, group in enumerate(case.steps)})


@pytest.mark.parametrize("choice", EVERY, ids=lambda c: c["name"])
@steady
@given(data=st.data(), seed=SEEDS)
def test_every_credit_agrees_with_its_twin(choice, data, seed):
    plain = choice["name"] == "gae_bilevel"  # RAGEN's loops know neither turns without tokens nor penalties
    groups = data.draw(marked_groups(shortest_turn=1 if plain else 0))
    case = Case.of(groups, seed, penalised=not plain and data.draw(st.booleans()))
    assert case.credit(**choice).tolist() == close(wanted(choice["name"], case), abs=1e-9)


def test_every_credit_is_tested():
    assert {choice["name"] for choice in EVERY} == set(CREDITS)


@pytest.mark.parametrize("choice", EVERY, ids=lambda c: c["name"])
@steady
@given(groups=marked_groups(), seed=SEEDS)
def test_what_models_say_of_observations_changes_nothing(choice, groups, seed):
    case = Case.of(groups, seed, penalised=True)
    other = np.random.default_rng(seed + 1).normal(size=case.batch.n_tokens).astype(np.float32)
    values = np.where(case.batch.action_mask, case.scores.values, other)
    changed = dataclasses.replace(case, scores=Scores(values=values))
    assert np.array_equal(case.credit(**choice), changed.credit(**choice))


@pytest.mark.parametrize("choice", EVERY, ids=lambda c: c["name"])
@steady
@given(groups=marked_groups(), seed=SEEDS)
def test_longer_observations_change_nothing(choice, groups, seed):
    """Neither do they discount, nor do they bootstrap."""
    case = Case.of(groups, seed)
    stretched = Case.of([stretch(group) for group in groups], seed)
    values = np.zeros(stretched.batch.n_tokens, np.float32)
    values[stretched.batch.action_mask] = case.scores.values[case.batch.action_mask]
    stretched = dataclasses.replace(stretched, scores=Scores(values=values))
    assert np.array_equal(case.credit(**choice), stretched.credit(**choice))


def stretch(group: Group) -> Group:
    """The same group, with five more observation tokens before each turn."""

    def longer(trajectory):
        lengths = [turn.span.stop - turn.span.start for turn in trajectory.turns]
        made = episode([(6, n, 0.0) for n in lengths])
        turns = [
            dataclasses.replace(old, span=new.span, segment=0)
            for old, new in zip(trajectory.turns, made.turns, strict=True)
        ]
        return dataclasses.replace(trajectory, segments=made.segments, turns=tuple(turns))

    return dataclasses.replace(group, trajectories=tuple(map(longer, group.trajectories)))


@pytest.mark.parametrize("choice", EVERY, ids=lambda c: c["name"])
@steady
@given(groups=marked_groups(), data=st.data(), seed=SEEDS)
def test_groups_know_nothing_of_each_other(choice, groups, data, seed):
    """Those that compare trajectories find them by group, also where state and node ids are the same."""
    case = Case.of(groups, seed)
    alone = Case.of(groups[:1], seed)
    values = case.scores.values[: alone.batch.n_tokens]
    alone = dataclasses.replace(alone, scores=Scores(values=values))
    got = alone.credit(**choice)
    assert got == close(case.credit(**choice)[: len(got)], abs=1e-9)


@pytest.mark.parametrize("choice", EVERY, ids=lambda c: c["name"])
def test_no_trajectories_is_no_error(choice):
    empty = Case.of([])
    assert empty.credit(**choice).tolist() == []


@pytest.mark.parametrize("choice", EVERY, ids=lambda c: c["name"])
@pytest.mark.parametrize("parameter", ["gamma", "lam", "gamma_hi", "lam_hi"])
def test_a_discount_outside_0_to_1_is_refused(choice, parameter):
    if parameter in choice:
        for value in (-0.1, 1.1, float("nan")):
            with pytest.raises(ConfigError, match=f"{choice['name']}.*{parameter}"):
                build("credit", {**choice, parameter: value}, CREDITS)


@pytest.mark.parametrize("choice", EVERY, ids=lambda c: c["name"])
def test_what_a_credit_says_of_itself_is_so(choice):
    """A credit that says it reads values, or states, cannot do without, and one that does not can."""
    turns = [(1, 2, 0.5), (1, 1, 1.0)]
    group = Group("g", "t", (episode(turns), episode(turns, seed=1)))
    component = build("credit", choice, CREDITS)
    batch = Batch.from_groups([group])
    needs_marks = choice["name"] in ("tree", "mc_turn") or component.needs_states
    case = Case(batch, Scores(), np.zeros(batch.turn_lengths.sum()), [])
    if component.needs_values or needs_marks:
        with pytest.raises(ConfigError, match=choice["name"]):
            case.credit(**choice)
    else:
        of_tokens = case.credit(**choice)[:3]
        assert component.varies == (len(set(of_tokens)) > 1)


def advantages_of(credit, turns, **more) -> list[float]:
    """Of the action tokens of one episode, with no baseline."""
    method = objective("reinforce", baseline="none", credit=credit, **more)
    credited = method.credit(method.select([Group("g", "t", (episode(turns),))]), Scores())
    return credited.advantages[credited.batch.action_mask].tolist()


def test_t2_discounted_returns():
    turns = [(1, 1, 1.0), (2, 1, 2.0), (1, 1, 3.0)]
    for name in ("rtg_token", "rtg_turn"):
        assert advantages_of({"name": name, "gamma": 0.5}, turns) == [2.75, 3.5, 3]


@pytest.mark.parametrize("name", ["rtg_token", "rtg_turn", "outcome_broadcast"])
def test_t23_credit_crosses_tool_spans(name):
    """Mask 1 1 0 0 1 1, last reward 1: every action token of every turn is credited with it."""
    turns = [(0, 2, 0.0), (2, 2, 1.0)]
    method = objective("reinforce", baseline="none", credit=name)
    credited = method.credit(method.select([Group("g", "t", (episode(turns),))]), Scores())
    assert credited.advantages.tolist() == [1, 1, 0, 0, 1, 1]


def test_t26_information_gain_and_its_returns():
    """Each turn earns what it adds to the probability of the right answer, the last one the outcome."""
    p, outcome = [0.1, 0.4, 0.35], 1.0
    gains = [p[1] - p[0], p[2] - p[1], outcome]
    assert gains[:2] == close([0.3, -0.05])
    turns = [(1, 2, gain) for gain in gains]
    assert advantages_of("rtg_turn", turns) == close([1.25, 1.25, 0.95, 0.95, 1, 1])


def test_tree_credits_a_shared_turn_with_the_mean_of_its_branches():
    """Two of three episodes share their first turn, all three the task; one turn has no node."""

    def branch(reward: float, seed: int, nodes: list[str | None]):
        made = episode([(1, 1, 0.0), (1, 2, reward)], seed=seed)
        turns = [dataclasses.replace(t, node_id=n) for t, n in zip(made.turns, nodes, strict=True)]
        return dataclasses.replace(made, turns=tuple(turns))

    group = (branch(1.0, 0, ["a", "b"]), branch(0.0, 1, ["a", "c"]), branch(0.25, 2, ["d", None]))
    case = Case.of([Group("g", "t", group), Group("h", "t", group[:1])])
    assert case.credit("tree").tolist() == [0.5, 1, 1, 0.5, 0, 0, 0.25, 0.25, 0.25, 1, 1, 1]


@pytest.mark.parametrize(("parts", "credited"), [("all", 1.75), ("outcome", 1.0), ("process", 0.75)])
def test_parts_of_the_reward_can_be_credited_alone(parts, credited):
    made = episode([(1, 1, 0.0), (1, 1, 0.0)])
    rewards = ({"step": 0.25}, {"step": 0.5, "correct": 1.0})
    turns = [dataclasses.replace(t, rewards=r) for t, r in zip(made.turns, rewards, strict=True)]
    made = dataclasses.replace(made, turns=tuple(turns), reward=1.75)
    for name in ("outcome_broadcast", "rtg_turn", "rtg_token"):
        method = objective("reinforce", baseline="none", credit={"name": name, "parts": parts})
        credited_batch = method.credit(method.select([Group("g", "t", (made,))]), Scores())
        assert credited_batch.advantages[1] == credited
