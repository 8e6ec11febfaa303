"""Baselines that something else foresaw: a greedy rollout, a critic, fresh rollouts out of a state.

What comes in: the batch's own record of it, or the critic's values. What goes out: the numbers to subtract. None of
them depends on what was sampled from that point on, so none biases the gradient. Knows no peers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.reward_side.base import Baseline, Scope
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.peers import or_own
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards


@dataclass(frozen=True, slots=True)
class Greedy(Baseline):
    """b_i = reward of a greedy rollout of i's task (ReMax, 2310.10505): the environment's, neither shaped nor with a
    penalty in it. A group whose greedy rollout failed gets advantage 0."""

    scope: ClassVar[Scope] = "own"
    needs_greedy: ClassVar[bool] = True

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        known = ~np.isnan(x.batch.greedy_rewards)
        if len(known) and not x.batch.greedy_played:
            raise ConfigError(
                "baseline 'greedy' compares with a greedy rollout of each task, and no group of this batch has "
                "one: let the collector make them, or set baseline = 'leave_one_out'"
            )
        of = x.batch.group_ids
        rewarded = Leveled(Level.TRAJECTORY, np.nan_to_num(x.batch.greedy_rewards)[of])
        return or_own(x.batch, rewarded, known[of], credit)


@dataclass(frozen=True, slots=True)
class Value(Baseline):
    """b_t = V_t, what the critic expects before token t, where the credit of tokens differs; elsewhere V at the first
    token of the turn, which is before any choice that the turn is credited for (1707.06347; 2512.17008 by turns)."""

    scope: ClassVar[Scope] = "own"
    needs_values: ClassVar[bool] = True

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        batch, values = x.batch, x.scores.values
        if values is None:
            raise ConfigError("baseline 'value' needs a critic's values and there are none: set critic = 'token_head'")
        if credit.level is Level.ACTION:
            return Leveled(Level.ACTION, values[batch.action_mask].astype(np.float64))
        asked = batch.turn_lengths > 0
        out = np.zeros(len(asked))
        out[asked] = values[batch.turn_starts[asked]]
        return or_own(batch, Leveled(Level.TURN, out), asked, credit)


@dataclass(frozen=True, slots=True)
class McValue(Baseline):
    """b_k = mean return of fresh rollouts from the state that turn k began in (VinePPO, 2410.01679). A turn whose state
    was not measured gets advantage 0."""

    scope: ClassVar[Scope] = "own"
    needs_rollouts: ClassVar[bool] = True

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        values = x.batch.turn_values
        known = ~np.isnan(values)
        if len(known) and not known.any():
            raise ConfigError(
                "baseline 'mc_value' compares with fresh rollouts from the state of each turn, and no turn of this "
                "batch has a value: use a collector that restores states and measures them, or baseline = 'turn_mean'"
            )
        return or_own(x.batch, Leveled(Level.TURN, np.nan_to_num(values)), known, credit)
