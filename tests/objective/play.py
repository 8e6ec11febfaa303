"""Builders of small episodes, and loss inputs from a batch, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import settings

from agentrl.objective import Batch, Credited, LossInputs, Objective, load_spec
from agentrl.trajectory import Group, Outcome, Segment, Trajectory, Turn

KINDS = {"correct": "outcome", "step": "process"}
steady = settings(deadline=None, max_examples=40)  # not timed: a busy machine must not fail a property


def episode(
    turns: Sequence[tuple[int, int, float]],
    *,
    group: str = "g",
    seed: int = 0,
    outcome: Outcome = Outcome.TERMINATED,
    new_segment_at: Sequence[int] = (),
    logprobs: Sequence[float] | None = None,
    part: str = "correct",
) -> Trajectory:
    """One episode. A turn is (observation tokens before it, action tokens, reward); `new_segment_at` names the turns
    whose history was rewritten; `logprobs` are the action tokens' under the behavior policy (default -1 each)."""
    rng = np.random.default_rng(seed)
    lp = iter(logprobs) if logprobs is not None else None
    masks: list[list[bool]] = [[]]
    values: list[list[float]] = [[]]
    made = []
    for k, (observed, acted, reward) in enumerate(turns):
        if k in new_segment_at:
            masks.append([])
            values.append([])
        masks[-1] += [False] * observed
        values[-1] += [0.0] * observed
        span = slice(len(masks[-1]), len(masks[-1]) + acted)
        masks[-1] += [True] * acted
        values[-1] += [next(lp) if lp is not None else -1.0 for _ in range(acted)]
        made.append(Turn(len(masks) - 1, span, {part: reward}))
    segments = tuple(
        Segment(rng.integers(0, 50, len(m)), np.array(m, bool), np.array(v, np.float32), np.where(m, 3, -1))
        for m, v in zip(masks, values, strict=True)
    )
    total = None if outcome.failed else float(sum(r for _, _, r in turns))
    return Trajectory("task", group, seed, segments, () if outcome.failed else tuple(made), outcome, total, KINDS)


def groups_of(*rewards: Sequence[float], length: int = 3) -> list[Group]:
    """Groups of one-turn episodes with these rewards."""
    return [
        Group(str(g), f"t{g}", tuple(episode([(2, length, r)], group=str(g), seed=i) for i, r in enumerate(rs)))
        for g, rs in enumerate(rewards)
    ]


def objective(preset: str, **overrides: object) -> Objective:
    return Objective(load_spec(preset, overrides))


def per_trajectory(credited: Credited) -> list[float]:
    """The advantage of each trajectory, which all its tokens must share."""
    out = []
    for i in range(credited.batch.n_trajectories):
        mine = credited.batch.loss_mask & (credited.batch.token_trajectory == i)
        values = set(credited.advantages[mine].tolist())
        assert len(values) == 1, values
        out.append(values.pop())
    return out


def loss_inputs(
    batch: Batch,
    advantages: np.ndarray,
    weights: np.ndarray,
    logprobs: torch.Tensor,
    old: np.ndarray,
    *,
    reference: np.ndarray | None = None,
    where: np.ndarray | None = None,
) -> LossInputs:
    """Float64 inputs for the tokens `where` (default: all action tokens). Arrays and `logprobs` are [N]."""
    at = np.flatnonzero(batch.action_mask) if where is None else where

    def pick(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(x, np.float64)[at])

    return LossInputs(
        logprobs=logprobs[torch.from_numpy(at)],
        old_logprobs=pick(old),
        behavior_logprobs=pick(batch.behavior_logprobs),
        advantages=pick(advantages),
        weights=pick(weights),
        sequence_ids=torch.from_numpy(batch.token_trajectory[at]),
        turn_ids=torch.from_numpy(batch.turn_ids[at]),
        reference_logprobs=None if reference is None else pick(reference),
    )


def tokens_loss(
    logprobs: Sequence[float],
    old: Sequence[float],
    advantages: Sequence[float],
    *,
    behavior: Sequence[float] | None = None,
    reference: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    sequence_ids: Sequence[int] | None = None,
) -> LossInputs:
    """Loss inputs from plain numbers; weights 1/A by default."""
    n = len(logprobs)

    def tensor(x: Sequence[float]) -> torch.Tensor:
        return torch.tensor(x, dtype=torch.float64)

    return LossInputs(
        logprobs=tensor(logprobs).requires_grad_(),
        old_logprobs=tensor(old),
        behavior_logprobs=tensor(old if behavior is None else behavior),
        advantages=tensor(advantages),
        weights=tensor([1 / n] * n if weights is None else weights),
        sequence_ids=torch.tensor(sequence_ids or [0] * n),
        turn_ids=torch.zeros(n, dtype=torch.int64),
        reference_logprobs=None if reference is None else tensor(reference),
    )
