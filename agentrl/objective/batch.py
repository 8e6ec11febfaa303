"""What an update sees: the trajectories of a step as flat arrays.

What comes in: groups of valid trajectories. What goes out: `Batch` (token streams laid end to end, no padding),
`Scores` (what the learner computed for them) and `Credited` (an advantage for every token). Knows no model, env or
torch.

Sizes: N tokens, A action tokens, K turns, R rows (a row is one segment), T trajectories. Every per-token array speaks
about the token at its own position. A trajectory is one sequence, however many rows and turns it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from agentrl.trajectory import BoolArray, FloatArray, Group, IntArray, Trajectory, Turn

Float64Array = npt.NDArray[np.float64]
Memory = Mapping[str, Mapping[str, float]]  # component's key -> its numbers; plain, so that it can be saved
_Number = TypeVar("_Number", np.int64, np.float32, np.float64, np.bool_)


@dataclass(frozen=True, eq=False)
class Batch:
    """Trajectories of one step, flat. Rows of a trajectory, and its turns, stand in the order they were played."""

    trajectories: tuple[Trajectory, ...]  # T
    group_ids: IntArray  # [T] dense: 0, 1, 2, ...
    token_ids: IntArray  # [N]
    action_mask: BoolArray  # [N] the policy sampled it
    loss_mask: BoolArray  # [N] it is trained on; a subset of action_mask
    behavior_logprobs: FloatArray  # [N] nats; 0 off actions
    versions: IntArray  # [N] policy version that sampled it; -1 off actions
    turn_ids: IntArray  # [N] index of the turn in its trajectory; -1 off actions
    row_starts: IntArray  # [R + 1] row i is tokens row_starts[i]:row_starts[i + 1]
    row_trajectory: IntArray  # [R]
    turn_trajectory: IntArray  # [K]
    turn_starts: IntArray  # [K] flat position of the turn's first action token
    turn_lengths: IntArray  # [K] action tokens; 0 is possible
    turn_rewards: Float64Array  # [K] sum of the turn's reward parts
    greedy_rewards: Float64Array  # [groups] reward of the group's greedy trajectory; NaN where it failed
    greedy_played: bool  # there were greedy trajectories
    metrics: Mapping[str, float] = field(default_factory=dict)  # what the selection has to report

    @classmethod
    def from_groups(cls, groups: Sequence[Group]) -> Batch:
        """Lay the groups' trajectories end to end; every action token is trained on.

        Raises:
            ValueError: a trajectory has no reward, its turns do not tell its action tokens, its turns' rewards do not
                sum to its reward, or nobody knows which weights sampled it.
        """
        groups = [group for group in groups if group.trajectories]
        trajectories = tuple(t for group in groups for t in group.trajectories)
        segments = [segment for t in trajectories for segment in t.segments]
        row_counts = _integers([len(t.segments) for t in trajectories])
        row_starts = np.append(0, np.cumsum(_integers([len(s.token_ids) for s in segments])))
        turns = _Turns.of(trajectories, row_counts, row_starts)
        _check_rewards(trajectories, turns)
        if not all(t.trainable for t in trajectories):
            raise ValueError(
                "trajectories whose tokens have no known policy version cannot be trained on: they were played by an "
                "engine for evaluation only, such as 'openai'"
            )
        action_mask = _join([s.action_mask for s in segments], np.bool_)
        turn_ids = spread_runs(turns.place, turns.starts, turns.lengths, len(action_mask), fill=-1)
        if not np.array_equal(turn_ids >= 0, action_mask):
            raise ValueError(
                "the spans of a trajectory's turns must cover exactly its action tokens, in the order of its segments; "
                "give every sampled token to one turn"
            )
        return cls(
            trajectories=trajectories,
            group_ids=np.repeat(np.arange(len(groups)), [len(group.trajectories) for group in groups]),
            token_ids=_join([s.token_ids for s in segments], np.int64),
            action_mask=action_mask,
            loss_mask=action_mask,
            behavior_logprobs=_join([s.logprobs for s in segments], np.float32),
            versions=_join([s.versions for s in segments], np.int64),
            turn_ids=turn_ids,
            row_starts=row_starts,
            row_trajectory=np.repeat(np.arange(len(trajectories)), row_counts),
            turn_trajectory=turns.trajectory,
            turn_starts=turns.starts,
            turn_lengths=turns.lengths,
            turn_rewards=turns.rewards,
            greedy_rewards=np.array([_greedy_reward(group) for group in groups], np.float64),
            greedy_played=any(group.greedy is not None for group in groups),
        )

    @property
    def n_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def n_rows(self) -> int:
        return len(self.row_trajectory)

    @property
    def n_trajectories(self) -> int:
        return len(self.trajectories)

    @cached_property
    def token_trajectory(self) -> IntArray:
        """[N] index of the trajectory a token belongs to."""
        return np.repeat(self.row_trajectory, np.diff(self.row_starts))

    @cached_property
    def rewards(self) -> Float64Array:
        """[T] total reward as the environment gave it."""
        return np.array([t.reward for t in self.trajectories], np.float64)

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """K turns, in the order of the turn table."""
        return tuple(turn for t in self.trajectories for turn in t.turns)

    @cached_property
    def turn_counts(self) -> IntArray:
        """[T] turns of each trajectory."""
        return np.bincount(self.turn_trajectory, minlength=self.n_trajectories).astype(np.int64)

    @cached_property
    def turn_index(self) -> IntArray:
        """[K] index of the turn in its trajectory: 0, 1, 2, ..."""
        first = np.cumsum(self.turn_counts) - self.turn_counts
        return np.arange(len(self.turn_trajectory)) - first[self.turn_trajectory]

    @cached_property
    def turn_groups(self) -> IntArray:
        """[K] group of the turn's trajectory."""
        return self.group_ids[self.turn_trajectory]

    @cached_property
    def turn_states(self) -> IntArray:
        """[K] dense ids of (group, state): equal where turns of one group began in the same state; -1 without an id."""
        return self._in_group([turn.state_id for turn in self.turns])

    @cached_property
    def turn_nodes(self) -> IntArray:
        """[K] dense ids of (group, node): equal where trajectories of one group share a sampled turn; -1 without."""
        return self._in_group([turn.node_id for turn in self.turns])

    @cached_property
    def turn_values(self) -> Float64Array:
        """[K] Monte-Carlo value of the state each turn began in; NaN where none was measured."""
        return np.array([np.nan if turn.value is None else turn.value for turn in self.turns], np.float64)

    def _in_group(self, names: Sequence[str | None]) -> IntArray:
        seen: dict[tuple[int, str], int] = {}
        groups = self.turn_groups.tolist()
        ids = (-1 if n is None else seen.setdefault((g, n), len(seen)) for g, n in zip(groups, names, strict=True))
        return np.fromiter(ids, np.int64, len(names))

    @cached_property
    def action_counts(self) -> IntArray:
        """[T] action tokens of each trajectory."""
        counts = np.bincount(self.turn_trajectory, self.turn_lengths, minlength=self.n_trajectories)
        return counts.astype(np.int64)

    @cached_property
    def loss_counts(self) -> IntArray:
        """[T] tokens of each trajectory that are trained on."""
        if self.loss_mask is self.action_mask:
            return self.action_counts
        return np.bincount(self.token_trajectory[self.loss_mask], minlength=self.n_trajectories).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Scores:
    """What models say about a batch's tokens. Positions off the action mask are never read."""

    logprobs: FloatArray | None = None  # [N] nats, under the weights the update starts from
    reference: FloatArray | None = None  # [N] nats, under the frozen reference
    teacher: FloatArray | None = None  # [N] nats, under the teacher
    values: FloatArray | None = None  # [N] return that the critic expects before the token is chosen


@dataclass(frozen=True, slots=True)
class Credited:
    """A batch ready for the update."""

    batch: Batch
    scores: Scores
    advantages: Float64Array  # [N] 0 where loss_mask is false
    metrics: Mapping[str, float]
    returns: FloatArray | None = None  # [N] what the critic is to predict; NaN where it is not asked
    columns: Mapping[str, FloatArray] = field(default_factory=dict)  # [N] each, as components prepared
    memory: Memory = field(default_factory=dict)  # of earlier steps, as the loss may read it


def check_sizes(batch: Batch, scores: Scores) -> None:
    """Refuse scores that are not about this batch.

    Raises:
        ValueError: names the array, its shape and the shape that is wanted.
    """
    arrays = {
        "logprobs": scores.logprobs,
        "reference": scores.reference,
        "teacher": scores.teacher,
        "values": scores.values,
    }
    for name, array in arrays.items():
        if array is not None and array.shape != (batch.n_tokens,):
            raise ValueError(
                f"scores.{name} has shape {array.shape} and the batch {batch.n_tokens} tokens: give one number a token"
            )


def spread_runs(
    values: npt.NDArray[_Number], starts: IntArray, lengths: IntArray, size: int, *, fill: float = 0
) -> npt.NDArray[_Number]:
    """Write values[k] at positions starts[k] : starts[k] + lengths[k] of an array of `size`, `fill` elsewhere.

    Runs must be in order and apart; anything else raises ValueError.
    """
    ends = starts + lengths
    gaps = np.concatenate([starts, [size]]) - np.concatenate([[0], ends])  # before each run, and after the last
    if (gaps < 0).any():
        raise ValueError(
            "runs overlap, are out of order or leave the array: turns must follow each other in the tokens"
        )
    repeats = np.empty(2 * len(values) + 1, np.int64)
    repeats[0::2], repeats[1::2] = gaps, lengths
    sources = np.full(len(repeats), fill, values.dtype)
    sources[1::2] = values
    return np.repeat(sources, repeats)


class _Turns(NamedTuple):
    """The turn table of a batch; [K] each."""

    trajectory: IntArray
    place: IntArray  # in its trajectory
    starts: IntArray  # flat
    lengths: IntArray
    rewards: Float64Array

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory], row_counts: IntArray, row_starts: IntArray) -> _Turns:
        turns = [turn for t in trajectories for turn in t.turns]
        counts = _integers([len(t.turns) for t in trajectories])
        trajectory = np.repeat(np.arange(len(trajectories)), counts)
        rows = (np.cumsum(row_counts) - row_counts)[trajectory] + _integers([turn.segment for turn in turns])
        spans = [turn.span for turn in turns]
        begins = _integers([span.start for span in spans])
        owners = np.repeat(np.arange(len(turns)), _integers([len(turn.rewards) for turn in turns]))
        parts = np.fromiter(chain.from_iterable(turn.rewards.values() for turn in turns), np.float64, len(owners))
        return cls(
            trajectory=trajectory,
            place=np.arange(len(turns)) - (np.cumsum(counts) - counts)[trajectory],
            starts=row_starts[rows] + begins,
            lengths=_integers([span.stop for span in spans]) - begins,
            rewards=np.bincount(owners, parts, minlength=len(turns)).astype(np.float64, copy=False),
        )


def _greedy_reward(group: Group) -> float:
    reward = None if group.greedy is None else group.greedy.reward
    return float("nan") if reward is None else reward


def _check_rewards(trajectories: Sequence[Trajectory], turns: _Turns) -> None:
    for trajectory in trajectories:
        if trajectory.reward is None:
            raise ValueError(
                f"trajectory {trajectory.task_id}/{trajectory.seed} is {trajectory.outcome} and has no reward; drop "
                "failed trajectories first, as Objective.select does"
            )
    rewards = np.array([t.reward for t in trajectories], np.float64)
    placed = np.bincount(turns.trajectory, turns.rewards, minlength=len(trajectories))
    has_turns = np.bincount(turns.trajectory, minlength=len(trajectories)) > 0
    for i in np.flatnonzero(has_turns & ~(np.abs(placed - rewards) <= 1e-6 * np.maximum(1.0, np.abs(placed)))):
        trajectory = trajectories[i]
        raise ValueError(
            f"the rewards of the turns of trajectory {trajectory.task_id}/{trajectory.seed} sum to {placed[i]}, its "
            f"reward is {trajectory.reward}; give every reward part to a turn"
        )


def _integers(values: Sequence[int]) -> IntArray:
    return np.fromiter(values, np.int64, len(values))


def _join(parts: Sequence[npt.NDArray[_Number]], dtype: type[_Number]) -> npt.NDArray[_Number]:
    return np.concatenate([np.zeros(0, dtype), *parts], dtype=dtype, casting="same_kind")
