"""Slot `baseline`: what is taken off the credit.

What comes in: rewards, and the credit made of them. What goes out: the numbers to subtract. Here: statistics of the
batch or of the group; the files beside this one have those of turns and states, of a critic or a greedy rollout, and
those kept from step to step. Each trajectory counts once, and failed ones are not in the batch at all. A group of one
has no peers to be compared with: where a group baseline is used, its advantage is 0 (verl's grpo, rloo, opo and gpg
leave the raw score there; its rloo_vectorized, prime-rl and SkyRL give 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.objective.reward_side.base import Baseline, Scope
from agentrl.objective.reward_side.baseline_foreseen import Greedy, McValue, Value
from agentrl.objective.reward_side.baseline_peers import PeerReturns
from agentrl.objective.reward_side.baseline_running import BetaTracker, Ema
from agentrl.objective.reward_side.baseline_turns import (
    GroupTurnMean,
    StateLeaveOneOut,
    StateMean,
    TurnLeaveOneOut,
    TurnMean,
)
from agentrl.objective.reward_side.groups import group_means, group_sums, others_means
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.peers import or_own
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, total_returns


@dataclass(frozen=True, slots=True)
class NoBaseline(Baseline):
    """b = 0."""

    scope: ClassVar[Scope] = "none"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        return Leveled(Level.TRAJECTORY, np.zeros(x.batch.n_trajectories))


@dataclass(frozen=True, slots=True)
class BatchMean(Baseline):
    """b = mean of R over the batch. It holds R_i itself, so the gradient is (1 - 1/T) times the unbiased
    one where the credit sums undiscounted rewards, and biased where it discounts them."""

    scope: ClassVar[Scope] = "batch"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        returns = total_returns(x.batch, rewards)
        return Leveled(Level.TRAJECTORY, np.full_like(returns, returns.mean() if len(returns) else 0.0))


@dataclass(frozen=True, slots=True)
class GroupMean(Baseline):
    """b_i = mean of R over i's group. It holds R_i itself, so the gradient is (1 - 1/G) times the
    unbiased one where the credit sums undiscounted rewards, and biased where it discounts them."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        return Leveled(Level.TRAJECTORY, group_means(x.batch, total_returns(x.batch, rewards)))


@dataclass(frozen=True, slots=True)
class LeaveOneOut(Baseline):
    """b_i = mean of R over i's group without i: R_i - b_i = G/(G-1) (R_i - mean), unbiased (2402.14740)."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        return Leveled(Level.TRAJECTORY, others_means(x.batch, total_returns(x.batch, rewards)))


@dataclass(frozen=True, slots=True)
class LenWeighted(Baseline):
    """b_i = sum_j n_j R_j / sum_j n_j over i's group, n the sampled tokens: the baseline of least variance if a
    token's gradient has the same norm everywhere (OPO, 2505.23585). It holds R_i itself."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        batch = x.batch
        lengths = batch.action_counts.astype(np.float64)
        weighted = group_sums(batch, lengths * total_returns(batch, rewards))
        return Leveled(Level.TRAJECTORY, weighted / np.maximum(group_sums(batch, lengths), 1))


@dataclass(frozen=True, slots=True)
class SecondBest(Baseline):
    """The best trajectory of a group gets R_max - R_second, all others 0: a gradient of E[max R] instead of E[R]
    (pass@k training, 2503.19595; verl's grpo_passk). Equal best ones leave nothing to gain."""

    scope: ClassVar[Scope] = "group"
    of_whole_returns: ClassVar[bool] = True

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        batch = x.batch
        returns = total_returns(batch, rewards)
        order = np.lexsort((-returns, batch.group_ids))
        groups = batch.group_ids[order]
        leads = np.flatnonzero((groups[:-1] == groups[1:]) & np.diff(groups[:-1], prepend=-1).astype(np.bool_))
        best, second = order[leads], order[leads + 1]
        baseline, is_best = np.zeros(len(returns)), np.zeros(len(returns), np.bool_)
        baseline[best], is_best[best] = returns[second], True
        return or_own(batch, Leveled(Level.TRAJECTORY, baseline), is_best, credit)


BASELINES: Mapping[str, type] = {
    "none": NoBaseline,
    "batch_mean": BatchMean,
    "group_mean": GroupMean,
    "leave_one_out": LeaveOneOut,
    "len_weighted": LenWeighted,
    "second_best": SecondBest,
    "greedy": Greedy,
    "value": Value,
    "mc_value": McValue,
    "ema": Ema,
    "beta_tracker": BetaTracker,
    "turn_mean": TurnMean,
    "turn_leave_one_out": TurnLeaveOneOut,
    "state_mean": StateMean,
    "state_leave_one_out": StateLeaveOneOut,
    "group_turn_mean": GroupTurnMean,
    "peer_returns": PeerReturns,
}
