"""The record of an episode: shapes are checked, a reward is there unless machinery broke, nothing can be changed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.trajectory import Completion, Group, Outcome, Segment, Trajectory, Turn

LENGTHS = st.tuples(*[st.integers(0, 3)] * 4)


def segment(*mask: bool) -> Segment:
    n = len(mask)
    action = np.array(mask, np.bool_)
    return Segment(np.arange(n), action, np.where(action, -1.0, 0.0).astype(np.float32), np.where(action, 0, -1))


def trajectory(outcome: Outcome = Outcome.TERMINATED, reward: float | None = 1.0, **given: Any) -> Trajectory:
    values: dict[str, Any] = {"task_id": "t", "group_id": "g", "seed": 0, "segments": (), "turns": (), **given}
    return Trajectory(outcome=outcome, reward=reward, **values)


@given(LENGTHS)
def test_a_segment_wants_arrays_of_one_length(lengths: tuple[int, int, int, int]) -> None:
    ids, mask, logprobs, versions = lengths
    arrays = np.zeros(ids, np.int64), np.zeros(mask, np.bool_), np.zeros(logprobs, np.float32), np.zeros(versions, int)
    if len(set(lengths)) == 1:
        assert len(Segment(*arrays)) == ids
    else:
        with pytest.raises(ValueError, match=r"Segment wants 1-d arrays of one length, got .*action_mask"):
            Segment(*arrays)


@given(st.tuples(*[st.integers(0, 3)] * 3))
def test_a_completion_wants_arrays_of_one_length(lengths: tuple[int, int, int]) -> None:
    arrays = [np.zeros(n) for n in lengths]
    if len(set(lengths)) == 1:
        Completion(*arrays, "stop")  # type: ignore[arg-type]
    else:
        with pytest.raises(ValueError, match=r"Completion wants 1-d arrays"):
            Completion(*arrays, "stop")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_arrays_have_one_dimension(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape)
    with pytest.raises(ValueError, match="1-d"):
        Segment(array, array, array, array)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1-d"):
        Completion(array, array, array, "stop")  # type: ignore[arg-type]


@given(st.sampled_from(Outcome), st.none() | st.floats(-2, 2))
def test_the_reward_is_none_exactly_where_machinery_broke(outcome: Outcome, reward: float | None) -> None:
    """Failure is not a zero, and a zero is not a failure."""
    if (reward is None) == outcome.failed:
        assert trajectory(outcome, reward).reward == reward
    else:
        with pytest.raises(ValueError, match=str(outcome)):
            trajectory(outcome, reward)


def test_outcomes_are_terminated_truncated_or_failed_and_only_one_of_them() -> None:
    kinds = {outcome: (outcome is Outcome.TERMINATED, outcome.truncated, outcome.failed) for outcome in Outcome}
    assert all(sum(kind) == 1 for kind in kinds.values())
    assert {o.value for o in Outcome if o.failed} == {
        *("failed_env", "failed_tool", "failed_engine", "failed_sandbox", "failed_verifier", "cancelled")
    }
    assert {o.value for o in Outcome if o.truncated} == {"truncated_turns", "truncated_tokens", "truncated_time"}
    assert Outcome("terminated") is Outcome.TERMINATED  # as records read it back


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=4))
def test_tokens_are_counted_over_all_segments(masks: list[list[bool]]) -> None:
    played = trajectory(segments=tuple(segment(*mask) for mask in masks))
    assert played.n_tokens == sum(map(len, masks))
    assert played.n_action_tokens == sum(map(sum, masks))
    assert isinstance(played.n_action_tokens, int)


def test_a_group_knows_its_valid_trajectories() -> None:
    """A reward of 0 is valid; order is kept."""
    zero, failed, one = trajectory(reward=0.0), trajectory(Outcome.FAILED_TOOL, None), trajectory(reward=1.0)
    group = Group("g", "t", (zero, failed, one))
    assert [t.reward for t in group.valid] == [0.0, 1.0]
    assert len(group.trajectories) == 3
    assert Group("g", "t", (failed,)).valid == ()


@pytest.mark.parametrize(
    "value",
    [
        Completion(np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.int64), "stop"),
        segment(True),
        Turn(0, slice(0, 1)),
        trajectory(),
        Group("g", "t", ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_frozen_and_take_no_new_attributes(value: Any) -> None:
    first = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, None)
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError, AttributeError)):
        value.anything_else = 1
    assert not hasattr(value, "__dict__")


def test_defaults_are_not_shared() -> None:
    assert Turn(0, slice(0, 1)).rewards is not Turn(0, slice(0, 1)).rewards
    assert trajectory().metrics is not trajectory().metrics
