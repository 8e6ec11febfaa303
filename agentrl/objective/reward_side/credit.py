"""Slot `credit`: what each trajectory, turn or token is held to account for, before any baseline.

What comes in: rewards at turns and, with a penalty in the reward, at tokens. What goes out: returns at the level they
differ on. A turn's reward lands on its last action token; observation tokens carry nothing and do not discount, and
turns are told apart by their ids, never by where a reward is non-zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from agentrl.objective.component import within
from agentrl.objective.reward_side.base import Credit
from agentrl.objective.reward_side.gae import GaeBilevel, GaeLength, GaeToken, GaeTurn, MonteCarloTurn
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, token_rewards, total_returns, turn_rewards
from agentrl.objective.reward_side.scan import discounted_suffix_sums
from agentrl.objective.reward_side.state_values import StateValues
from agentrl.objective.reward_side.states import StatePooled
from agentrl.objective.reward_side.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeBroadcast(Credit):
    """Every token is credited with its trajectory's whole return R."""

    varies: ClassVar[bool] = False

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        return Leveled(Level.TRAJECTORY, total_returns(x.batch, rewards))


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardToGoToken(Credit):
    """G_t = sum_{j >= t} gamma^(j - t) r_j over the action tokens of the trajectory."""

    gamma: float = 1.0
    of_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("credit 'rtg_token'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        same_in_turn = self.gamma == 1.0 and rewards.tokens is None
        if same_in_turn and x.scores.values is None:  # a critic's values differ from token to token
            return RewardToGoTurn()(x, rewards)
        values = token_rewards(x.batch, rewards)
        return Leveled(Level.ACTION, discounted_suffix_sums(values, x.batch.action_counts, self.gamma))


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardToGoTurn(Credit):
    """G_k = sum_{j >= k} gamma^(j - k) r_j over the turns of the trajectory; all tokens of turn k get G_k."""

    gamma: float = 1.0

    def __post_init__(self) -> None:
        within("credit 'rtg_turn'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        values = turn_rewards(x.batch, rewards)
        return Leveled(Level.TURN, discounted_suffix_sums(values, x.batch.turn_counts, self.gamma))


CREDITS: Mapping[str, type] = {
    "outcome_broadcast": OutcomeBroadcast,
    "rtg_token": RewardToGoToken,
    "rtg_turn": RewardToGoTurn,
    "gae_token": GaeToken,
    "gae_length": GaeLength,
    "gae_turn": GaeTurn,
    "gae_bilevel": GaeBilevel,
    "mc_turn": MonteCarloTurn,
    "tree": Tree,
    "state_pooled": StatePooled,
    "state_values": StateValues,
}
