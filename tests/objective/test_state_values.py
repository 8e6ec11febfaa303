"""Credit with states' values from the group itself, and the baseline of all peers' turns: numbers, twins, no bias."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.objective.audit.compare import compare
from agentrl.objective.audit.draws import one_task
from agentrl.objective.audit.settings import cast
from agentrl.objective.audit.verdict import Verdict, judge
from agentrl.objective.audit.worlds import DETOUR, ERRAND
from agentrl.trajectory import Group
from tests.objective.audits import fair, settings
from tests.objective.play import episode, objective, steady
from tests.objective.turns import by_turn, stateful_groups, through
from tests.objective.twin import mean

close = pytest.approx


def turns_of(groups, *, credit="rtg_turn", baseline="none"):
    method = objective("reinforce", credit=credit, baseline=baseline)
    return by_turn(method.credit(method.select(groups), Scores()))


def test_values_are_averaged_again_at_every_shared_state_by_hand():
    """a: s u v, rewards 0 0 4; b: s t v, 1 0 0; c: s v, 0 2.

    V(v) = mean(4, 0, 2) = 2; u and t are met once: 0 + 2 = 2 each; V(s) is not asked. So at s: a 0 + 2, b 1 + 2,
    c 0 + V(v) = 2. Pooling single returns instead gives a 0 + 4, b 1 + 0, c 0 + 2.
    """
    played = (
        through("suv", [0.0, 0.0, 4.0]),
        through("stv", [1.0, 0.0, 0.0], seed=1),
        through("sv", [0.0, 2.0], seed=2),
    )
    groups = [Group("g", "t", played)]
    assert turns_of(groups, credit="state_values") == close([2, 2, 4, 3, 2, 0, 2, 2])
    assert turns_of(groups, credit="state_pooled") == close([4, 2, 4, 1, 2, 0, 2, 2])


def test_a_discount_stands_at_each_turn():
    played = (through("sv", [1.0, 4.0]), through("tv", [0.0, 2.0], seed=1))
    got = turns_of([Group("g", "t", played)], credit={"name": "state_values", "gamma": 0.5})
    assert got == close([1 + 0.5 * 3, 4, 0.5 * 3, 2])


def values_twin(group):
    """V by recursion over states, for groups in which no trajectory meets a state twice."""
    turns = [(i, k) for i, t in enumerate(group.trajectories) for k in range(len(t.turns))]

    def state(i, k):
        name = group.trajectories[i].turns[k].state_id
        return name if name is not None else (i, k)

    def credit(i, k):
        trajectory = group.trajectories[i]
        reward = sum(trajectory.turns[k].rewards.values())
        if k + 1 == len(trajectory.turns):
            return reward
        return reward + mean([credit(j, m) for j, m in turns if state(j, m) == state(i, k + 1)])

    return [credit(i, k) for i, k in turns]


@st.composite
def forward_groups(draw):
    """Groups in which states stand in one order, so that none is met twice."""
    played = []
    for i in range(draw(st.integers(1, 4))):
        names = sorted(draw(st.sets(st.sampled_from("abcdef"), min_size=1, max_size=4)))
        rewards = [draw(st.sampled_from([0.0, 1.0, 0.5, -0.25])) for _ in names]
        played.append(through(names, rewards, seed=i))
    return Group("g", "t", tuple(played))


@steady
@given(group=forward_groups())
def test_values_agree_with_the_recursion_over_states(group):
    assert turns_of([group], credit="state_values") == close(values_twin(group))


def test_without_shared_states_it_is_the_return_to_go():
    groups = [Group("g", "t", (through("ab", [1.0, 2.0]), through("cd", [0.0, 3.0], seed=1)))]
    assert turns_of(groups, credit="state_values") == turns_of(groups) == [3, 2, 3, 3]


def peers_twin(groups, state, index, weight_of_group):
    out = []
    for group in groups:
        turns = [
            (i, k, t.turns[k].state_id, sum(sum(x.rewards.values()) for x in t.turns[k:]))
            for i, t in enumerate(group.trajectories)
            for k in range(len(t.turns))
        ]
        for i, k, name, own in turns:
            weighed = [
                (weight_of_group + index * (m == k) + state * (name is not None and other == name), g)
                for j, m, other, g in turns
                if j != i
            ]
            total = sum(w for w, _ in weighed)
            whole = [t.reward for j, t in enumerate(group.trajectories) if j != i]
            if total > 0:
                out.append(own - sum(w * g for w, g in weighed) / total)
            else:
                out.append(own - mean(whole) if whole else 0.0)
    return out


@pytest.mark.parametrize(
    "weights", [(1.0, 0.3, 0.1), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 2.0), (0.5, 0.5, 0.0)]
)
@steady
@given(groups=stateful_groups(shortest_turn=1))
def test_peer_returns_agree_with_the_twin(weights, groups):
    state, index, of_group = weights
    chosen = {"name": "peer_returns", "state": state, "index": index, "group": of_group}
    assert turns_of(groups, baseline=chosen) == close(peers_twin(groups, *weights), abs=1e-9)


def test_peer_returns_by_hand():
    """For a's first turn: b's turns have returns 3 (same state, same index) and 1: weights 1.4 and 0.1."""
    groups = [Group("g", "t", (through("s", [5.0]), through("su", [2.0, 1.0], seed=1)))]
    first, *others = turns_of(groups, baseline="peer_returns")
    assert first == close(5 - (1.4 * 3 + 0.1 * 1) / 1.5)
    assert others == close([3 - 5, 1 - 5])


def test_without_state_ids_only_a_state_weight_of_0_will_do():
    groups = [Group("g", "t", (episode([(1, 1, 1.0)]), episode([(1, 1, 0.0)], seed=1)))]
    with pytest.raises(ConfigError, match=r"baseline 'peer_returns' .* state id"):
        turns_of(groups, baseline="peer_returns")
    assert turns_of(groups, baseline={"name": "peer_returns", "state": 0.0}) == [1, -1]
    with pytest.raises(ConfigError, match=r"credit 'state_values' .* state id"):
        turns_of(groups, credit="state_values")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"state": -1.0}, "state must be at least 0"),
        ({"state": 0.0, "index": 0.0, "group": 0.0}, "no turn weighs anything"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\]"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights, said):
    with pytest.raises(ConfigError, match=said):
        objective("reinforce", baseline={"name": "peer_returns", **weights})


@pytest.mark.parametrize("credit", ["outcome_broadcast", "rtg_turn", "state_pooled", "state_values"])
@pytest.mark.parametrize("state", [0.0, 1.0])
def test_they_are_unbiased_together_and_apart(credit, state):
    spec = fair(credit=credit, baseline={"name": "peer_returns", "state": state})
    assert judge(compare(spec, settings())) is Verdict.UNBIASED


def test_they_have_the_least_variance_of_what_needs_no_critic():
    of = [one_task(cast(world), 3) for world in (ERRAND, DETOUR)]
    ours = compare(fair(credit="state_values", baseline="peer_returns"), of)
    assert judge(ours) is Verdict.UNBIASED
    for credit, baseline in (
        ("outcome_broadcast", "leave_one_out"),
        ("rtg_turn", "leave_one_out"),
        ("rtg_turn", "turn_leave_one_out"),
        ("rtg_turn", "state_leave_one_out"),
        ("state_pooled", "state_leave_one_out"),
    ):
        theirs = compare(fair(credit=credit, baseline=baseline), of)
        assert judge(theirs) is Verdict.UNBIASED
        assert all(mine.noise < other.noise for mine, other in zip(ours, theirs, strict=True))
