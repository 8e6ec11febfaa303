"""What is remembered from step to step: through credit and remember, saved and taken up again."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.objective.memory import Remembers
from agentrl.trajectory import Group, Outcome
from tests.objective.play import episode, groups_of, objective, per_trajectory, steady, tokens_loss

close = pytest.approx
ADAPTIVE = {"name": "adaptive_k1", "initial": 0.5, "target": 0.1, "horizon": 10.0}


def tasks(**rewards: list[float]) -> list[Group]:
    """One group a task, of one-turn episodes with these rewards."""
    return [
        Group(
            name,
            name,
            tuple(
                dataclasses.replace(episode([(1, 2, r)], group=name, seed=i), task_id=name) for i, r in enumerate(rs)
            ),
        )
        for name, rs in rewards.items()
    ]


def method(baseline="none", **more):
    return objective("reinforce", **{"credit": "outcome_broadcast", "baseline": baseline, **more})


def scores_of(batch, gap):
    """The policy's log-probs lie `gap` above the reference's, at every token."""
    logprobs = np.full(batch.n_tokens, -1.0, np.float32)
    return Scores(logprobs, logprobs - np.float32(gap))


def play(method_, steps, memory=None, saved=False):
    """The advantages of each step, and the memory after the last.

    Args:
        steps: (groups, gap to the reference, metrics of the update)
        saved: write the memory down and read it after each step
    """
    advantages = []
    for groups, gap, metrics in steps:
        batch = method_.select(groups)
        credited = method_.credit(batch, scores_of(batch, gap), memory)
        memory = method_.remember(credited, metrics)
        if saved:
            memory = json.loads(json.dumps(memory))
        advantages.append(credited.advantages)
    return advantages, memory


RETURNS = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=3)
STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["red", "blue:a", ""]), RETURNS, max_size=3),
        st.floats(-0.3, 0.3),
        st.floats(0, 0.1),
    ),
    max_size=5,
)


@pytest.mark.parametrize(
    "slots",
    [
        {"kl_in_reward": ADAPTIVE},
        {"baseline": {"name": "ema", "decay": 0.8}},
        {"baseline": {"name": "ema", "decay": 0.8, "per": "task"}},
        {"baseline": "beta_tracker"},
        {"baseline": {"name": "ema", "decay": 0.5}, "kl_in_reward": ADAPTIVE},
    ],
)
@steady
@given(drawn=STEPS)
def test_a_run_taken_up_again_is_the_run_uninterrupted(slots, drawn):
    steps = [(tasks(**rewards), gap, {"old_abs": drift}) for rewards, gap, drift in drawn]
    whole, memory = play(method(**slots), steps)
    resumed, read = play(method(**slots), steps, saved=True)
    assert all(map(np.array_equal, whole, resumed))
    assert memory == read
    remembering = [c for c in method(**slots).spec.components if isinstance(c, Remembers)]
    assert (memory or {}).keys() == {c.key for c in remembering if drawn}


@steady
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1, 1)), max_size=6))
def test_adaptive_kl_follows_the_formula(drawn):
    beta, memory, method_ = 0.5, None, method(kl_in_reward=ADAPTIVE)
    for n, gap in drawn:
        batch = method_.select(groups_of([0.0] * n, length=2))
        credited = method_.credit(batch, scores_of(batch, gap), memory)
        assert credited.advantages[batch.action_mask].tolist() == close([-2 * beta * gap] * 2 * n, abs=1e-5)
        memory = method_.remember(credited, {})
        beta *= 1 + min(max(gap / 0.1 - 1, -0.2), 0.2) * n / 10
        assert memory["adaptive_k1"]["beta"] == close(beta, rel=1e-4)


def test_adaptive_kl_is_a_mean_over_trajectories_of_their_means():
    method_ = method(kl_in_reward={"name": "adaptive_k1", "initial": 1.0, "target": 0.1, "horizon": 10.0})
    batch = method_.select([Group("g", "t", (episode([(1, 1, 0.0)]), episode([(3, 9, 0.0)], seed=1)))])
    gaps = np.where(batch.token_trajectory == 0, 0.2, 0.02).astype(np.float32)
    gaps[~batch.action_mask] = 99
    scores = Scores(np.zeros(batch.n_tokens, np.float32), -gaps)
    memory = method_.remember(method_.credit(batch, scores), {})
    assert memory["adaptive_k1"]["beta"] == close(1 + (0.11 / 0.1 - 1) * 2 / 10, abs=1e-6)


def test_adaptive_kl_never_turns_negative():
    method_ = method(kl_in_reward={"name": "adaptive_k1", "initial": 1.0, "target": 1.0, "horizon": 1.0})
    _, memory = play(method_, [(groups_of([0.0] * 12), 0.0, {})])
    assert memory["adaptive_k1"] == {"beta": close(0.8)}


def test_a_running_mean_scores_before_it_counts():
    method_ = method({"name": "ema", "decay": 0.5})
    advantages, memory = play(method_, [(tasks(a=[1.0]), 0, {}), (tasks(b=[3.0]), 0, {}), (tasks(a=[1.0, 0.0]), 0, {})])
    assert [a[a != 0].tolist() for a in advantages] == [[1, 1], [2.5, 2.5], [-0.75, -0.75, -1.75, -1.75]]
    assert memory == {"ema": {"run": 0.25 * 1.75 + 0.75 * 0.5}}  # 0 -> .5 -> 1.75, then two returns at once


def test_a_running_mean_for_each_task_keeps_those_that_are_not_played():
    method_ = method({"name": "ema", "decay": 0.5, "per": "task"})
    steps = [(tasks(a=[1.0], b=[2.0]), 0, {}), (tasks(b=[0.0]), 0, {}), (tasks(a=[1.0], c=[1.0]), 0, {})]
    advantages, memory = play(method_, steps)
    assert advantages[2].tolist() == [0, 0.5, 0.5, 0, 1, 1]
    assert memory == {"ema": {"a": 0.75, "b": 0.5, "c": 0.5}}


def test_returns_in_one_step_count_as_if_one_came_after_the_other_in_any_order():
    one_by_one = [(tasks(a=[0.5]), 0, {})] * 3
    at_once = [(tasks(a=[0.5] * 3), 0, {})]
    for baseline in ({"name": "ema", "decay": 0.7}, {"name": "ema", "decay": 0.7, "per": "task"}):
        first, second = (play(method(baseline), steps)[1]["ema"] for steps in (one_by_one, at_once))
        assert first == close(second)


def test_what_is_remembered_is_what_is_credited():
    made = episode([(1, 1, 1.0), (1, 1, 0.0)])
    turns = (made.turns[0], dataclasses.replace(made.turns[1], rewards={"step": 4.0}))
    group = Group("g", "t", (dataclasses.replace(made, turns=turns, reward=5.0),))
    for parts, wanted in (("all", 5), ("outcome", 1), ("process", 4)):
        method_ = method({"name": "ema", "decay": 0.5}, credit={"name": "outcome_broadcast", "parts": parts})
        assert play(method_, [([group], 0, {})])[1] == {"ema": {"run": wanted / 2}}
    penalised = method({"name": "ema", "decay": 0.5}, kl_in_reward={"name": "k1", "beta": 0.5}, shape="threshold")
    assert play(penalised, [([group], 0.25, {})])[1]["ema"]["run"] == close((1 - 2 * 0.125) / 2)


def test_masked_trajectories_are_remembered_and_failed_ones_are_not():
    method_ = method({"name": "ema", "decay": 0.5}, filters=["truncated_mask"])
    cut = episode([(1, 1, 1.0)], outcome=Outcome.TRUNCATED_TURNS)
    failed = episode([(1, 1, 0.0)], outcome=Outcome.FAILED_ENV, seed=1)
    assert play(method_, [([Group("g", "t", (cut, failed))], 0, {})])[1] == {"ema": {"run": 0.5}}


def test_the_tracker_forgets_by_how_far_the_policy_went_since_the_task_was_seen():
    method_ = method({"name": "beta_tracker", "rho_min": 0.5, "rho_max": 0.9, "half_life": 0.1})
    steps = [
        (tasks(a=[1.0], b=[0.0, 1.0]), 0, {"old_abs": 0.02}),  # never seen: no drift since
        (tasks(b=[0.0]), 0, {"old_abs": 0.03}),
        (tasks(a=[1.0], b=[]), 0, {"old_abs": 0.3}),
        ([], 0, {"old_abs": 0.5}),
        (tasks(a=[0.0]), 0, {"old_abs": 0.1}),
    ]
    advantages, memory = play(method_, steps)
    a = 0.9 * 0.5 + 1, 0.9 * 0.5
    b = 0.9 * 0.5 + 1, 0.9 * 0.5 + 1
    assert advantages[1][1:].tolist() == close([-b[0] / sum(b)] * 2)
    rho = 2 ** (-0.2)  # 0.02
    b = rho * b[0], rho * b[1] + 1
    assert advantages[2][1:].tolist() == close([1 - a[0] / sum(a)] * 2)
    rho = 2 ** (-0.5)  # 0.02 + 0.03
    a = rho * a[0] + 1, rho * a[1]
    assert advantages[4][1:].tolist() == close([-a[0] / sum(a)] * 2)
    a = 0.5 * a[0], 0.5 * a[1] + 1  # 0.5: rho_min
    kept = memory["beta_tracker"]
    assert (kept["a:a"], kept["a:b"]) == close(a)
    assert (kept["b:a"], kept["b:b"]) == close(b)
    assert (kept["a:seen"], kept["b:seen"], kept["drift"]) == close((0.85, 0.02, 0.95))


def test_the_tracker_reads_a_drift_that_the_loss_reports():
    inputs = tokens_loss([-1.0, -2.0, -3.0], [-1.5, -2.0, -2.75], [1.0] * 3)
    assert objective("grpo").loss(inputs).sums["old_abs"].item() == close(0.75)


@pytest.mark.parametrize("reward", [-0.1, 1.1])
def test_the_tracker_wants_successes(reward):
    method_ = method("beta_tracker")
    with pytest.raises(ConfigError, match=rf"returns must be in \[0, 1\], got {reward:g}: set shape = 'threshold'"):
        play(method_, [(tasks(a=[1.0, reward]), 0, {})])
    play(method("beta_tracker", shape="threshold"), [(tasks(a=[1.0, reward]), 0, {})])
    rounding = tasks(a=[1.0 + 1e-12, -1e-12])
    assert play(method_, [(rounding, 0, {})])[1]["beta_tracker"]["a:a"] == close(1.48)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"name": "ema", "decay": 1.5}, r"decay must be in \[0, 1\], got 1.5"),
        ({"name": "ema", "per": "group"}, "'run' or 'task', got 'group'"),
        ({"name": "beta_tracker", "rho_min": 0.97}, r"rho_min must be in \[0, 0.96\], got 0.97"),
        ({"name": "beta_tracker", "half_life": 0.0}, "half_life must be at least"),
    ],
)
def test_parameters_are_checked(choice, says):
    with pytest.raises(ConfigError, match=says):
        method(choice)


def test_nothing_is_remembered_where_nothing_remembers():
    assert play(objective("grpo"), [(groups_of([1, 0]), 0, {})])[1] == {}


def test_memory_is_not_written_into():
    memory = {"ema": {"run": 1.0}}
    play(method("ema"), [(tasks(a=[3.0]), 0, {})], memory)
    assert memory == {"ema": {"run": 1.0}}
    assert per_trajectory(method("ema").credit(method("ema").select(tasks(a=[3.0])), Scores(), memory)) == [2]
