"""What a step's rewards look like, before and after credit.

What comes in: groups, or a batch and its advantages. What goes out: named numbers. Knows no loss.

A trajectory is *right* when it succeeded: its outcome parts sum to at least 1, as everywhere. Shares of groups are
over groups with at least two valid trajectories; a group of zero variance is *all solved* when all its trajectories
are right and *all failed* when all are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentrl.objective.batch import Batch
from agentrl.objective.reward_side.levels import Leveled
from agentrl.objective.trajectory_side.select import zero_variance
from agentrl.trajectory import FloatArray, Group, succeeded


def selection_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """About all trajectories that were collected, whatever the filters make of them; failed ones are only counted."""
    trajectories = [t for group in groups for t in group.trajectories]
    valid = [t for t in trajectories if t.reward is not None]
    out = {"trajectories/valid": float(len(valid)), "trajectories/failed": float(len(trajectories) - len(valid))}
    if not valid:
        return out
    rewards = np.array([t.reward for t in valid], np.float64)
    right = np.array([succeeded(t) for t in valid])
    lengths = np.array([t.n_action_tokens for t in valid], np.float64)
    out |= {
        "reward/mean": float(rewards.mean()),
        "reward/std": float(rewards.std()),
        "trajectories/right": float(right.mean()),
        "trajectories/truncated": float(np.mean([t.outcome.truncated for t in valid])),
    }
    if right.any():
        out["length/right"] = float(lengths[right].mean())
    if not right.all():
        out["length/wrong"] = float(lengths[~right].mean())
    return out | _group_shares(groups)


def credit_metrics(batch: Batch, advantage: Leveled, advantages: FloatArray) -> dict[str, float]:
    """About the tokens that are trained on."""
    tokens = int(batch.loss_counts.sum())
    return {
        "tokens/loss": float(tokens),
        "tokens/effective": float(np.count_nonzero(advantages)),
        "advantage/abs_mean": float(np.abs(advantages).sum(dtype=np.float64)) / max(tokens, 1),
    }


def _group_shares(groups: Sequence[Group]) -> dict[str, float]:
    compared = [group for group in groups if len(group.valid) >= 2]
    if not compared:
        return {}
    flat = [group for group in compared if zero_variance(group)]
    return {
        "groups/zero_variance": len(flat) / len(compared),
        "groups/all_solved": sum(all(map(succeeded, g.valid)) for g in flat) / len(compared),
        "groups/all_failed": sum(not any(map(succeeded, g.valid)) for g in flat) / len(compared),
    }
