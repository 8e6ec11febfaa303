"""Scale `whiten`: mean 0 and standard deviation 1 over the batch.

What comes in: the centred credit. What goes out: the whitened one. Knows no groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import at_least
from agentrl.objective.reward_side.base import Scale, Scope
from agentrl.objective.reward_side.levels import Level, Leveled, sums_of_runs
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards


@dataclass(frozen=True, slots=True)
class Whiten(Scale):
    """(x - mean) / (std + eps), std with n - 1 (REINFORCE++, 2501.03262; verl and TRL take n - 1, OpenRLHF n).

    level "token": over the loss tokens, so a long trajectory counts for more, as in REINFORCE++. level "sequence": over
    all trajectories, each counted once however many turns or tokens it has; those that are not trained on count too.
    """

    level: Literal["token", "sequence"] = "token"
    eps: float = 1e-8
    scope: ClassVar[Scope] = "batch"
    centres: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("scale 'whiten'", 1e-12, eps=self.eps)

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        weights = _loss_tokens(x.batch, centred.level) if self.level == "token" else _shares(x.batch, centred.level)
        n = float(weights.sum())
        if n <= 0:
            return centred
        values = centred.values - float(weights @ centred.values) / n
        std = float(np.sqrt(weights @ values**2 / max(n - 1, 1.0)))
        return Leveled(centred.level, values / (std + self.eps))


def _loss_tokens(batch: Batch, level: Level) -> Float64Array:
    """[T], [K] or [A] tokens that each number is trained on at."""
    kept = batch.loss_mask[batch.action_mask].astype(np.float64)
    if level is Level.ACTION:
        return kept
    if level is Level.TRAJECTORY:
        return batch.loss_counts.astype(np.float64)
    return sums_of_runs(batch.turn_lengths, kept)


def _shares(batch: Batch, level: Level) -> Float64Array:
    """[T], [K] or [A] weights that sum to 1 in each trajectory that has any number at this level."""
    if level is Level.TRAJECTORY:
        return np.ones(batch.n_trajectories)
    counts = batch.turn_counts if level is Level.TURN else batch.action_counts
    return np.repeat(1 / np.maximum(counts, 1), counts)
