"""Laying groups flat, choosing what counts, and what is reported of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from agentrl.objective import Batch, Objective, Scores, preset_names
from agentrl.objective.metrics import selection_metrics
from agentrl.objective.reward_side.rewards import Parts
from agentrl.objective.trajectory_side.select import zero_variance
from agentrl.trajectory import Group, Outcome, Trajectory
from tests.objective.play import episode, groups_of, objective, per_trajectory
from tests.objective.turns import through

FAILED = Outcome.FAILED_TOOL


def scores_for(method: Objective, batch: Batch) -> Scores:
    """Of models that all say the same, as far as the method asks them."""
    same, spec = np.zeros(batch.n_tokens, np.float32), method.spec
    return Scores(
        logprobs=same,
        reference=same if spec.needs_reference else None,
        teacher=same if spec.needs_teacher else None,
        values=same if spec.needs_values else None,
    )


def test_the_flat_arrays():
    a = episode([(2, 1, 0.5), (1, 2, 0.25)], logprobs=[-1, -2, -3], seed=1)
    b = episode([(1, 1, 0.0), (2, 1, 1.0)], new_segment_at=[1], seed=2)
    batch = Batch.from_groups([Group("x", "t", (a,)), Group("none", "t", ()), Group("y", "t", (b,))])
    assert batch.action_mask.astype(int).tolist() == [0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1]
    assert batch.turn_ids.tolist() == [-1, -1, 0, -1, 1, 1, -1, 0, -1, -1, 1]
    assert batch.behavior_logprobs.tolist() == [0, 0, -1, 0, -2, -3, 0, -1, 0, 0, -1]
    assert batch.token_ids.tolist() == [*a.segments[0].token_ids, *b.segments[0].token_ids, *b.segments[1].token_ids]
    assert batch.versions.tolist() == np.where(batch.action_mask, 3, -1).tolist()
    assert batch.row_starts.tolist() == [0, 6, 8, 11]
    assert batch.row_trajectory.tolist() == [0, 1, 1]
    assert batch.token_trajectory.tolist() == [0] * 6 + [1] * 5
    assert batch.group_ids.tolist() == [0, 1]
    assert batch.rewards.tolist() == [0.75, 1]
    assert batch.turn_rewards.tolist() == [0.5, 0.25, 0, 1]
    assert batch.action_counts.tolist() == batch.loss_counts.tolist() == [3, 2]
    assert (batch.n_tokens, batch.n_rows, batch.n_trajectories) == (11, 3, 2)


def test_a_batch_refuses_what_credit_could_not_be_right_on():
    good = episode([(1, 2, 1.0), (1, 2, 0.0)])
    failed = dataclasses.replace(good, outcome=FAILED, reward=None)
    unplaced = dataclasses.replace(good, reward=2.0)
    short = dataclasses.replace(good, turns=(good.turns[0], dataclasses.replace(good.turns[1], span=slice(4, 5))))
    swapped = dataclasses.replace(good, turns=good.turns[::-1])
    nowhere = dataclasses.replace(good, reward=float("nan"))
    for bad, says in (
        (failed, "task/0 is failed_tool and has no reward"),
        (unplaced, "task/0 sum to 1.0, its reward is 2"),
        (nowhere, "its reward is nan"),
        (short, "cover exactly"),
        (swapped, "order"),
    ):
        with pytest.raises(ValueError, match=says):
            Batch.from_groups([Group("g", "t", (bad,))])


def test_turn_tables_of_rewritten_histories_and_empty_turns():
    a = episode([(1, 2, 0.5), (1, 0, 0.25), (2, 1, 1.0)], new_segment_at=[2])
    b = episode([(1, 0, 0.0), (1, 1, 2.0), (0, 0, 4.0)], new_segment_at=[1], seed=1)
    none = dataclasses.replace(episode([(3, 0, 7.0)]), turns=(), reward=7.0)
    batch = Batch.from_groups([Group("x", "t", (a, none)), Group("y", "u", (b,))])
    assert batch.row_starts.tolist() == [0, 4, 7, 10, 11, 13]
    assert batch.row_trajectory.tolist() == [0, 0, 1, 2, 2]
    assert batch.turn_trajectory.tolist() == [0, 0, 0, 2, 2, 2]
    assert batch.turn_index.tolist() == [0, 1, 2, 0, 1, 2]
    assert batch.turn_starts.tolist() == [1, 4, 6, 11, 12, 13]
    assert batch.turn_lengths.tolist() == [2, 0, 1, 0, 1, 0]
    assert batch.turn_ids.tolist() == [-1, 0, 0, -1, -1, -1, 2, -1, -1, -1, -1, -1, 1]
    assert batch.turn_rewards.tolist() == [0.5, 0.25, 1, 0, 2, 4]
    assert batch.turn_counts.tolist() == [3, 0, 3]
    assert batch.turn_groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.action_counts.tolist() == [3, 0, 1]
    assert batch.rewards.tolist() == [1.75, 7, 6]


def test_marks_of_turns_are_told_apart_by_group():
    a, b = through(["s", None, "m"], [0, 0, 0]), through(["m", "s"], [0, 0], seed=1)
    marks = [("n", 0.5), (None, None), ("o", None)]
    turns = [dataclasses.replace(t, node_id=n, value=v) for t, (n, v) in zip(a.turns, marks, strict=True)]
    a = dataclasses.replace(a, turns=tuple(turns))
    batch = Batch.from_groups([Group("x", "t", (a, b)), Group("y", "t", (a,))])
    assert batch.turn_states.tolist() == [0, -1, 1, 1, 0, 2, -1, 3]
    assert batch.turn_nodes.tolist() == [0, -1, 1, -1, -1, 2, -1, 3]
    assert batch.turn_values.tolist() == pytest.approx([0.5, *[np.nan] * 4, 0.5, *[np.nan] * 2], nan_ok=True)


def test_named_parts_of_the_rewards():
    """A name that a turn lacks is 0 there; one whose kind was not declared is an outcome."""
    made = episode([(1, 1, 0.0), (1, 1, 0.0), (1, 1, 0.0)])
    rewards = ({"step": 0.5, "extra": -1.0}, {}, {"correct": 1.0, "step": 0.25})
    turns = [dataclasses.replace(t, rewards=r) for t, r in zip(made.turns, rewards, strict=True)]
    batch = Batch.from_groups([Group("g", "t", (dataclasses.replace(made, turns=tuple(turns), reward=0.75),))])
    parts = Parts.of(batch)
    assert parts.names == ("correct", "extra", "step")
    assert parts.kinds == ("outcome", "outcome", "process")
    assert parts.values.tolist() == [[0, -1, 0.5], [0, 0, 0], [1, 0, 0.25]]
    assert batch.turn_rewards.tolist() == parts.sum("all").tolist() == [-0.5, 0, 1.25]
    assert parts.sum("process").tolist() == [0.5, 0, 0.25]
    assert parts.sum("none").tolist() == [0, 0, 0]
    assert Parts.of(Batch.from_groups([])).values.shape == (0, 0)


def test_failed_trajectories_are_in_no_baseline():
    groups = groups_of([1, 0, 0])
    failed = episode([(2, 3, 0.0)], outcome=FAILED, seed=9)
    with_failed = [Group("0", "t0", (failed, *groups[0].trajectories, failed)), Group("1", "t1", (failed,))]
    for preset in ("grpo", "rloo", "dr_grpo", "reinforce"):
        method = objective(preset)
        credited = method.credit(method.select(with_failed), Scores())
        assert per_trajectory(credited) == per_trajectory(method.credit(method.select(groups), Scores()))
        assert credited.metrics["failed"] == 1 / 2
        assert credited.metrics["reward"] == 1 / 3


def test_zero_variance_groups_are_dropped_on_request():
    groups = groups_of([1, 1], [1, 0], [0.3], [0.1 + 0.2, 0.3])
    assert [zero_variance(g) for g in groups] == [True, False, True, True]
    method = objective("grpo", filters="zero_variance_drop")
    credited = method.credit(method.select(groups), Scores())
    assert credited.batch.trajectories == groups[1].trajectories
    assert credited.metrics["groups/filtered"] == 3
    assert credited.metrics["reward"] == pytest.approx(np.mean([1, 1, 1, 0, 0.3, 0.3, 0.3]))
    assert objective("grpo").select(groups).n_trajectories == 7


def test_truncated_trajectories_are_masked_but_stay_in_the_baseline():
    cut = episode([(1, 2, 1.0)], outcome=Outcome.TRUNCATED_TIME)
    group = Group("g", "t", (cut, episode([(1, 2, 0.0)], seed=1)))
    method = objective("dr_grpo", filters=["truncated_mask"])
    credited = method.credit(method.select([group]), Scores())
    assert credited.advantages.tolist() == [0, 0, 0, 0, -0.5, -0.5]
    assert credited.batch.loss_counts.tolist() == [0, 2]
    assert credited.metrics["tokens/loss"] == credited.metrics["tokens/effective"] == 2
    assert credited.metrics["advantage/abs_mean"] == 0.5


def test_a_token_masked_inside_a_trajectory_has_no_weight_and_no_advantage():
    batch = objective("grpo").select([Group("g", "t", (episode([(1, 3, 1.0)]), episode([(1, 1, 0.0)], seed=1)))])
    mask = batch.action_mask.copy()
    mask[2] = False
    batch = dataclasses.replace(batch, loss_mask=mask)
    assert batch.loss_counts.tolist() == [2, 1]
    weights = objective("grpo").token_weights(batch)
    assert weights.tolist() == [0, 0.25, 0, 0.25, 0, 0.5]
    assert objective("dr_grpo").credit(batch, Scores()).advantages.tolist() == [0, 0.5, 0, 0.5, 0, -0.5]


@pytest.mark.parametrize("preset", preset_names())
def test_nothing_left_is_not_an_error(preset):
    method = objective(preset, filters=["zero_variance_drop", "truncated_mask"])
    for groups in ([], groups_of([1, 1])):
        batch = method.select(groups)
        credited = method.credit(batch, scores_for(method, batch))
        assert batch.n_tokens == len(credited.advantages) == len(method.token_weights(batch)) == 0
        assert credited.metrics["tokens/loss"] == 0


def test_a_trajectory_without_turns_counts_in_the_baseline_alone():
    whole = episode([(1, 2, 1.0)])
    nothing = dataclasses.replace(
        episode([(1, 1, 0.0)], seed=1), turns=(), reward=-1.0, outcome=Outcome.TRUNCATED_TOKENS
    )
    mask = np.array([False, False])
    stream = dataclasses.replace(nothing.segments[0], action_mask=mask)
    nothing = dataclasses.replace(nothing, segments=(stream,))
    method = objective("dr_grpo")
    batch = method.select([Group("g", "t", (nothing, whole))])
    assert method.credit(batch, Scores()).advantages.tolist() == [0, 0, 0, 1, 1]
    assert method.token_weights(batch).tolist() == pytest.approx([0, 0, 0, 1 / 1024, 1 / 1024])


def test_the_reward_of_a_turn_without_tokens_lands_on_the_action_before_it():
    played = episode([(1, 0, 8.0), (1, 2, 1.0), (0, 0, 2.0), (1, 1, 4.0)])
    method = objective("reinforce", baseline="none", credit={"gamma": 0.5})
    batch = method.select([Group("g", "t", (episode([(0, 1, 16.0)]), played))])
    assert method.credit(batch, Scores()).advantages.tolist() == [16, 0, 0, 2.5, 5, 0, 4]


def right_and_wrong() -> list[Group]:
    def one(reward: float, seed: int, length: int = 2, part: str = "correct", **more: object) -> Trajectory:
        return episode([(1, length, reward)], seed=seed, part=part, **more)

    return [
        Group("solved", "a", (one(1, 0, 4), one(1, 1, 6))),
        Group("failed", "b", (one(0, 2, 10), one(0, 3, 2, outcome=Outcome.TRUNCATED_TURNS))),
        Group("process only", "c", (one(0.9, 4, 3, part="step"), one(0.9, 5, 3, part="step"))),
        Group("mixed", "d", (one(1, 6, 5), one(0, 7, 7))),
        Group("one", "e", (one(1, 8, 5),)),
        Group("broken", "f", (one(0, 9, outcome=FAILED), one(0, 10, outcome=FAILED))),
    ]


def test_what_is_reported_of_right_and_wrong():
    """Process parts make nothing right, a single episode is no group, and failed ones are only counted."""
    got = selection_metrics(right_and_wrong())
    wanted = {
        "episodes": 11,
        "failed": 2 / 11,
        "reward": 5.8 / 9,
        "reward_std": np.std([1, 1, 0, 0, 0.9, 0.9, 1, 0, 1]),
        "success": 4 / 9,
        "truncated": 1 / 9,
        "length/right": 5,
        "length/wrong": 5,
        "groups/zero_variance": 3 / 4,
        "groups/all_solved": 1 / 4,
        "groups/all_failed": 2 / 4,
    }
    assert {name: got[name] for name in wanted} == pytest.approx(wanted)
    assert "reward" not in selection_metrics([])
