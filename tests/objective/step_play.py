"""Whole steps drawn at random that every preset can take: states, shared turns, values, greedy episodes, all scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from agentrl.objective import Batch, Credited, Objective, Scores
from agentrl.trajectory import Group, Outcome, Segment, Trajectory, Turn
from tests.objective.loss_play import Step
from tests.objective.play import episode


def any_groups(seed: int, *, n_groups: int = 3) -> list[Group]:
    """Groups of two to four episodes of one to three turns, each of one row; rewards 0 or 1 and equal in the last
    group; one episode was cut, one holds a turn without tokens, one a void turn."""
    rng = np.random.default_rng(seed)
    groups = []
    for g in range(n_groups):
        size = int(rng.integers(2, 5))
        right = [g == n_groups - 1 or i == 0 or (i > 1 and rng.random() < 0.5) for i in range(size)]
        played = tuple(_played(rng, g, i, right[i]) for i in range(size))
        groups.append(Group(str(g), f"task{g}", played, greedy=_played(rng, g, size, True)))
    return groups


def _played(rng: np.random.Generator, group: int, index: int, right: bool) -> Trajectory:
    counts = [(int(rng.integers(0, 3)), int(rng.integers(1, 4)), 0.0) for _ in range(int(rng.integers(1, 4)))]
    if index == 1:
        counts.insert(1, (1, 0, 0.0))
    counts[-1] = (*counts[-1][:2], float(right))
    outcome = Outcome.TRUNCATED_TURNS if index == 2 else Outcome.TERMINATED
    logprobs = (-0.05 - 2 * rng.random(sum(acted for _, acted, _ in counts))).tolist()
    made = episode(counts, group=str(group), seed=int(rng.integers(99)), outcome=outcome, logprobs=logprobs)
    turns = [
        replace(
            turn,
            state_id=f"s{k and rng.integers(2)}",
            node_id=f"n{k}-{rng.integers(2)}",
            value=float(rng.random()),
            void=index == 3 and k == 0,
        )
        for k, turn in enumerate(made.turns)
    ]
    return replace(made, turns=tuple(turns), task_id=f"task{group}")


def in_rows(trajectory: Trajectory, at: Sequence[int]) -> Trajectory:
    """A trajectory of one row, whose turns `at` open new ones: the same tokens."""
    (stream,) = trajectory.segments
    spans = [turn.span for turn in trajectory.turns]
    cuts = sorted({0, len(stream), *(spans[k - 1].stop for k in at if 0 < k < len(spans))})
    rows = list(pairwise(cuts))

    def moved(turn: Turn) -> Turn:
        row = next(i for i, (start, end) in enumerate(rows) if start <= turn.span.start and turn.span.stop <= end)
        start = rows[row][0]
        return replace(turn, segment=row, span=slice(turn.span.start - start, turn.span.stop - start))

    def piece(start: int, end: int) -> Segment:
        kept = slice(start, end)
        return Segment(stream.token_ids[kept], stream.action_mask[kept], stream.logprobs[kept], stream.versions[kept])

    return replace(
        trajectory,
        segments=tuple(piece(start, end) for start, end in rows),
        turns=tuple(moved(turn) for turn in trajectory.turns),
    )


def any_scores(batch: Batch, seed: int, *, off_actions: int = 0) -> Scores:
    """Every model's numbers; `off_actions` seeds those at observation tokens."""
    rng, other = np.random.default_rng(seed), np.random.default_rng((seed, off_actions))

    def drawn(location: float, spread: float) -> Any:
        here, there = (r.normal(location, spread, batch.n_tokens) for r in (rng, other))
        return np.where(batch.action_mask, here, there).astype(np.float32)

    return Scores(logprobs=drawn(-1.2, 0.3), reference=drawn(-1.2, 0.3), teacher=drawn(-1.2, 0.3), values=drawn(0, 1))


def credited_step(
    method: Objective, groups: Sequence[Group], seed: int, *, off_actions: int = 0
) -> tuple[Credited, Step]:
    """The step as credited, and as the loss reads it with a policy that has moved."""
    batch = method.select(groups)
    scores = any_scores(batch, seed, off_actions=off_actions)
    credited = method.credit(batch, scores)
    rng, other = np.random.default_rng(seed + 1), np.random.default_rng((seed, off_actions, 1))

    def moved(x: np.ndarray, spread: float) -> np.ndarray:
        here, there = (r.normal(0, spread, batch.n_tokens) for r in (rng, other))
        return x.astype(np.float64) + np.where(batch.action_mask, here, there)

    nothing = np.zeros(batch.n_tokens)
    return credited, Step(
        batch=batch,
        now=moved(scores.logprobs, 0.2),
        old=scores.logprobs.astype(np.float64),
        behavior=batch.behavior_logprobs.astype(np.float64),
        reference=scores.reference.astype(np.float64),
        advantages=credited.advantages,
        entropies=moved(nothing + 1, 0.1),
        values=moved(scores.values, 0.3),
        old_values=scores.values.astype(np.float64),
        returns=nothing * np.nan if credited.returns is None else credited.returns.astype(np.float64),
        columns=credited.columns,
    )
