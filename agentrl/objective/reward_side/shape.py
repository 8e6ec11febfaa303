"""Slot `shape`: steps from the environment's reward parts to the rewards that are credited, in order.

What comes in: a batch and its reward parts, [K, P]. What goes out: parts again; their sum is each turn's reward. No
step at all: the environment's rewards as they are. What is known of a trajectory only at its end stands at its last
turn, as an outcome. A length is a number of sampled tokens: observations are none. A trajectory without any turn keeps
the environment's reward. Knows no baseline and no token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import at_least, within
from agentrl.objective.reward_side.base import Scope, Shape
from agentrl.objective.reward_side.groups import EQUAL, group_maxima, group_means, group_stds
from agentrl.objective.reward_side.levels import sums_by
from agentrl.objective.reward_side.rewards import Parts, RewardInputs, Rewards, total_returns


@dataclass(frozen=True, slots=True)
class OverlongSoft(Shape):
    """Add the part "overlong": 0 up to max_length - cache sampled tokens, from there linear to -1 at max_length, -1
    beyond (DAPO, 2503.14476)."""

    max_length: int
    cache: int

    def __post_init__(self) -> None:
        at_least("shape 'overlong_soft'", 1, cache=self.cache)
        within("shape 'overlong_soft'", self.cache, float("inf"), max_length=self.max_length)

    def __call__(self, x: RewardInputs, parts: Parts) -> Parts:
        over = (self.max_length - self.cache - x.batch.action_counts) / self.cache
        return parts.plus("overlong", "outcome", at_last_turns(x.batch, np.clip(over, -1.0, 0.0)))


@dataclass(frozen=True, slots=True)
class LengthPenalty(Shape):
    """Add the part "length": -mean_g(R) (tokens n_i/max_g n + observed o_i/max_g o + turns k_i/max_g k), with n
    sampled tokens, o observed ones and k turns of trajectory i (prime-rl's linear length penalty).

    It grows with the share of the group that succeeds. A group with a negative mean is not penalised: prime-rl uses the
    mean as it is, which would pay for length there.
    """

    tokens: float = 0.0
    observed: float = 0.0
    turns: float = 0.0
    scope: ClassVar[Scope] = "group"

    def __post_init__(self) -> None:
        at_least("shape 'length_penalty'", 0.0, tokens=self.tokens, observed=self.observed, turns=self.turns)

    def __call__(self, x: RewardInputs, parts: Parts) -> Parts:
        batch = x.batch
        acted = batch.action_counts.astype(np.float64)
        streams = sums_by(batch.row_trajectory, np.diff(batch.row_starts).astype(np.float64), batch.n_trajectories)
        counts = ((self.tokens, acted), (self.observed, streams - acted), (self.turns, batch.turn_counts.astype(float)))
        shares = [weight * count / np.maximum(group_maxima(batch, count), 1) for weight, count in counts]
        earned = np.maximum(group_means(batch, total_returns(batch, Rewards(parts.sum("all")))), 0.0)
        return parts.plus("length", "outcome", at_last_turns(batch, -earned * np.sum(shares, axis=0)))


@dataclass(frozen=True, slots=True)
class PerRewardStd(Shape):
    """Divide each part by std_g + eps, std (n - 1) over the group's totals of that part; 0 where that std is 0 (GDPO,
    2601.05242).

    With baseline 'group_mean' the advantage is then the sum of the parts' z-scores, so that no part drowns another. eps
    is TRL's; verl has 1e-6.
    """

    eps: float = 1e-4
    scope: ClassVar[Scope] = "group"
    rescales: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("shape 'per_reward_std'", 1e-12, eps=self.eps)

    def __call__(self, x: RewardInputs, parts: Parts) -> Parts:
        batch = x.batch
        factors = np.zeros((batch.n_trajectories, len(parts.names)))
        for p in range(len(parts.names)):
            stds = group_stds(batch, sums_by(batch.turn_trajectory, parts.values[:, p], batch.n_trajectories))
            factors[:, p] = np.where(stds > EQUAL, 1 / (stds + self.eps), 0.0)
        return replace(parts, values=parts.values * factors[batch.turn_trajectory])


@dataclass(frozen=True, slots=True)
class Threshold(Shape):
    """One part "threshold" instead of all others: 1[R >= at], R the sum of the trajectory's parts (STaR, 2203.14465;
    rejection-sampling fine-tuning)."""

    at: float = 1.0

    def __call__(self, x: RewardInputs, parts: Parts) -> Parts:
        returns = sums_by(x.batch.turn_trajectory, parts.sum("all"), x.batch.n_trajectories)
        passed = (returns >= self.at - EQUAL).astype(np.float64)
        return Parts(("threshold",), ("outcome",), at_last_turns(x.batch, passed)[:, None])


def at_last_turns(batch: Batch, x: Float64Array) -> Float64Array:
    """[K] x of each trajectory at its last turn, 0 at the others."""
    last = batch.turn_index == batch.turn_counts[batch.turn_trajectory] - 1
    return np.where(last, x[batch.turn_trajectory], 0.0)


SHAPES: Mapping[str, type] = {
    "overlong_soft": OverlongSoft,
    "length_penalty": LengthPenalty,
    "per_reward_std": PerRewardStd,
    "threshold": Threshold,
}
