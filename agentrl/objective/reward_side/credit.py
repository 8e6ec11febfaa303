"""Slot `credit`: what each trajectory, turn or token is held to account for, before any baseline.

What comes in: rewards at turns and, with a penalty in the reward, at tokens. What goes out: returns at the level they
differ on. A turn's reward lands on its last action token; observation tokens carry nothing and do not discount, and
turns are told apart by their ids, never by where a reward is non-zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import within
from agentrl.objective.reward_side.levels import Level, Leveled, sum_by_trajectory, sums_by
from agentrl.objective.reward_side.scan import discounted_suffix_sums


@dataclass(frozen=True, slots=True)
class Rewards:
    """What is to be credited."""

    turns: Float64Array  # [K]
    tokens: Float64Array | None  # [A] added at each action token; None: nothing is


class Credit(Protocol):
    varies: ClassVar[bool]  # tokens of one trajectory can get different credit

    def __call__(self, batch: Batch, rewards: Rewards) -> Leveled: ...


@dataclass(frozen=True, slots=True)
class OutcomeBroadcast:
    """Every token is credited with its trajectory's whole return R."""

    varies: ClassVar[bool] = False

    def __call__(self, batch: Batch, rewards: Rewards) -> Leveled:
        return Leveled(Level.TRAJECTORY, total_returns(batch, rewards))


@dataclass(frozen=True, slots=True)
class RewardToGoToken:
    """G_t = sum_{j >= t} gamma^(j - t) r_j over the action tokens of the trajectory."""

    gamma: float = 1.0
    varies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("credit 'rtg_token'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, batch: Batch, rewards: Rewards) -> Leveled:
        if self.gamma == 1.0 and rewards.tokens is None:  # then all tokens of a turn have one and the same return
            return RewardToGoTurn(gamma=1.0)(batch, rewards)
        values = token_rewards(batch, rewards)
        return Leveled(Level.ACTION, discounted_suffix_sums(values, batch.action_counts, self.gamma))


@dataclass(frozen=True, slots=True)
class RewardToGoTurn:
    """G_k = sum_{j >= k} gamma^(j - k) r_j over the turns of the trajectory; all tokens of turn k get G_k."""

    gamma: float = 1.0
    varies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("credit 'rtg_turn'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, batch: Batch, rewards: Rewards) -> Leveled:
        values = rewards.turns
        if rewards.tokens is not None:
            owner = np.repeat(np.arange(len(batch.turn_lengths)), batch.turn_lengths)
            values = values + sums_by(owner, rewards.tokens, len(batch.turn_lengths))
        turns_of = np.bincount(batch.turn_trajectory, minlength=batch.n_trajectories)
        return Leveled(Level.TURN, discounted_suffix_sums(values, turns_of, self.gamma))


def total_returns(batch: Batch, rewards: Rewards) -> Float64Array:
    """[T] undiscounted return of each trajectory. One without any turn keeps the environment's reward."""
    totals = sum_by_trajectory(batch, Leveled(Level.TURN, rewards.turns))
    without_turns = np.bincount(batch.turn_trajectory, minlength=batch.n_trajectories) == 0
    totals[without_turns] = batch.rewards[without_turns]
    if rewards.tokens is not None:
        totals += sum_by_trajectory(batch, Leveled(Level.ACTION, rewards.tokens))
    return totals


def token_rewards(batch: Batch, rewards: Rewards) -> Float64Array:
    """[A] rewards at action tokens: each turn's on its last one.

    The reward of a turn without tokens lands on the last action token before it in its trajectory; where there is none,
    no action led to it and no token gets it.
    """
    out = np.zeros(int(batch.turn_lengths.sum())) if rewards.tokens is None else rewards.tokens.copy()
    last = np.cumsum(batch.turn_lengths) - 1  # [K] in action tokens; an empty turn points at the token before it
    first_of_trajectory = np.cumsum(batch.action_counts) - batch.action_counts
    led_to = last >= first_of_trajectory[batch.turn_trajectory]
    np.add.at(out, last[led_to], rewards.turns[led_to])
    return out


CREDITS: Mapping[str, type] = {
    "outcome_broadcast": OutcomeBroadcast,
    "rtg_token": RewardToGoToken,
    "rtg_turn": RewardToGoTurn,
}
