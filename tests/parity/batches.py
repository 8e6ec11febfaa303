"""Random multi-turn batches, as flat arrays for agentrl and as padded rows for the peers.

What comes in: a seed. What goes out: one and the same episodes and log-probs in both layouts. Knows no peer.

A peer's row is a trajectory: its segments end to end, then padding on the right. Observation tokens stand in the row
with a mask of 0 and log-probs of their own, which nobody may read. Whatever agentrl keeps in float32 is rounded to it
for both sides, so that the comparison itself is in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from agentrl.objective import Batch, Objective, Scores, load_spec
from agentrl.trajectory import Group, Outcome, Segment, Trajectory, Turn

KINDS = {"correct": "outcome", "step": "process"}
SIZES = (4, 3, 5, 2)  # trajectories of each group
TRUNCATED = 5  # every fifth trajectory was cut by a limit


@dataclass(frozen=True)
class Rows:
    """The padded layout. B trajectories, L tokens of the longest."""

    flat: torch.Tensor  # [B, L] int64 position in the flat arrays; -1 in the padding
    actions: torch.Tensor  # [B, L] 1.0 at action tokens
    mask: torch.Tensor  # [B, L] 1.0 at action tokens that are trained on
    groups: np.ndarray  # [B] names of the groups, as objects
    n_tokens: int  # N

    def of(self, x: np.ndarray | torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        """[B, L] of flat numbers [N], with gradient if they have any."""
        x = torch.as_tensor(x)
        return x[self.flat.clamp(min=0)].where(self.flat >= 0, fill)

    def back(self, rows: torch.Tensor, where: torch.Tensor | None = None) -> np.ndarray:
        """[N] numbers of rows [B, L] at action tokens (or `where`), 0 elsewhere."""
        kept = (self.actions if where is None else where) > 0
        out = np.zeros(self.n_tokens)
        out[self.flat[kept].numpy()] = rows.detach()[kept].numpy()
        return out


@dataclass(frozen=True)
class Sample:
    """Episodes and what models say about their tokens; all arrays [N] float64."""

    groups: Sequence[Group]
    batch: Batch
    logprobs: np.ndarray  # under the weights being trained
    old: np.ndarray  # at the step's start
    reference: np.ndarray
    values: np.ndarray  # of the critic, now
    old_values: np.ndarray  # of the critic, at the step's start
    returns: np.ndarray  # some numbers for the critic to predict
    entropies: np.ndarray
    advantages: np.ndarray  # another one for every token

    @property
    def behavior(self) -> np.ndarray:
        return self.batch.behavior_logprobs.astype(np.float64)

    @property
    def scores(self) -> Scores:
        return Scores(*(x.astype(np.float32) for x in (self.old, self.reference, self.reference, self.old_values)))

    @cached_property
    def per_trajectory(self) -> np.ndarray:
        """[N] advantages that are the same at all tokens of a trajectory."""
        return np.random.default_rng(7).normal(0, 1, self.batch.n_trajectories)[self.batch.token_trajectory]

    @cached_property
    def rows(self) -> Rows:
        """Every token of every trajectory."""
        return self._rows(np.ones(self.batch.n_tokens, np.bool_))

    @cached_property
    def acted(self) -> Rows:
        """Action tokens alone, for peers that know no others."""
        return self._rows(self.batch.action_mask)

    def _rows(self, kept: np.ndarray) -> Rows:
        b = self.batch
        positions = [np.flatnonzero(kept & (b.token_trajectory == i)) for i in range(b.n_trajectories)]
        flat = np.full((b.n_trajectories, max(map(len, positions))), -1)
        for i, mine in enumerate(positions):
            flat[i, : len(mine)] = mine
        at, real = np.maximum(flat, 0), flat >= 0
        names = np.array([f"group {g}" for g in b.group_ids], object)
        actions, mask = (torch.tensor((m[at] & real).astype(np.float64)) for m in (b.action_mask, b.loss_mask))
        return Rows(torch.tensor(flat), actions, mask, names, b.n_tokens)

    @cached_property
    def token_rewards(self) -> torch.Tensor:
        """[B, L] each turn's reward on its last action token, as the peers want it."""
        b = self.batch
        out = np.zeros(b.n_tokens)
        out[b.turn_starts + b.turn_lengths - 1] = b.turn_rewards
        return self.rows.of(out)

    def part_rewards(self, name: str) -> np.ndarray:
        """[B] sum of one part of the rewards over each trajectory."""
        return np.array([sum(turn.rewards[name] for turn in t.turns) for t in self.batch.trajectories])


def sample(
    seed: int,
    *,
    sizes: Sequence[int] = SIZES,
    drift: float = 0.3,
    gap: float = 0.4,
    truncated: bool = True,
    greedy: bool = False,
    whole_rewards: bool = False,
) -> Sample:
    """Draw one.

    Args:
        sizes: trajectories of each group
        drift: spread of log pi - log pi_old
        gap: spread of log pi_old - log mu
        truncated: some trajectories are in the statistics and not in the loss
        greedy: every group has a greedy trajectory
        whole_rewards: rewards are 0 or 1, on the last turn, and equal within the second group
    """
    rng = np.random.default_rng(seed)
    groups = []
    for g, size in enumerate(sizes):
        played = []
        for i in range(size):
            cut = truncated and (sum(sizes[:g]) + i) % TRUNCATED == TRUNCATED - 1
            outcome = Outcome.TRUNCATED_TOKENS if cut else Outcome.TERMINATED
            reward = float(g == 1 or rng.random() < 0.5) if whole_rewards else None
            played.append(_trajectory(rng, f"group {g}", outcome, reward))
        best = _trajectory(rng, f"group {g}", Outcome.TERMINATED, None) if greedy else None
        groups.append(Group(f"group {g}", f"task {g}", tuple(played), best))
    batch = selector().select(groups)
    n = batch.n_tokens
    behavior = np.where(batch.action_mask, batch.behavior_logprobs, rng.uniform(-4, -2, n))
    old = _single(_logprobs(behavior + rng.normal(0, gap, n)))
    return Sample(
        groups=groups,
        batch=batch,
        logprobs=_logprobs(old + rng.normal(0, drift, n)),
        old=old,
        reference=_single(_logprobs(old + rng.normal(0, 0.5, n))),
        values=rng.normal(0, 1, n),
        old_values=_single(rng.normal(0, 1, n)),
        returns=_single(rng.normal(0, 1, n)),
        entropies=rng.uniform(0.1, 2, n),
        advantages=rng.normal(0, 1, n),
    )


def selector(**overrides: object) -> Objective:
    """An objective that masks truncated trajectories and keeps everything else."""
    return Objective(load_spec("reinforce", {"filters": ["truncated_mask"], **overrides}))


def _trajectory(rng: np.random.Generator, group: str, outcome: Outcome, reward: float | None) -> Trajectory:
    n_turns = int(rng.integers(1, 5))
    rewritten = int(rng.integers(1, 6))  # the turn that opens a new segment; often there is none
    masks: list[list[bool]] = [[]]
    turns = []
    for k in range(n_turns):
        if k == rewritten:
            masks.append([])
        observed, acted = int(rng.integers(1, 4)), int(rng.integers(1, 6))
        masks[-1] += [False] * observed + [True] * acted
        span = slice(len(masks[-1]) - acted, len(masks[-1]))
        last = k == n_turns - 1
        if reward is None:
            rewards = {"step": float(rng.normal(0, 0.3)), "correct": float(rng.normal(0.5, 1)) if last else 0.0}
        else:
            rewards = {"step": 0.0, "correct": reward if last else 0.0}
        turns.append(Turn(len(masks) - 1, span, rewards, state_id=f"state {rng.integers(0, 3)}"))
    segments = tuple(_segment(rng, np.array(mask, bool)) for mask in masks)
    total = float(sum(sum(turn.rewards.values()) for turn in turns))
    return Trajectory("task", group, 0, segments, tuple(turns), outcome, total, KINDS)


def _segment(rng: np.random.Generator, mask: np.ndarray) -> Segment:
    logprobs = np.where(mask, -rng.uniform(0.2, 3, len(mask)), 0).astype(np.float32)
    return Segment(rng.integers(0, 50, len(mask)), mask, logprobs, np.where(mask, 3, -1))


def _logprobs(x: np.ndarray) -> np.ndarray:
    """Below 0, as log-probs are."""
    return -np.abs(x)


def _single(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64)
