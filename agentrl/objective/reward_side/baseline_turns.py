"""Baselines that compare a turn with turns of its group: at the same index, in the same state, or all of them.

What comes in: rewards and a credit; where the credit of tokens differs, a turn's is that of its first token. What goes
out: the numbers to subtract from each turn. A turn counts once, however many tokens it has. A turn without peers has
nobody to be compared with: its baseline is its own credit, and its advantage 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import within
from agentrl.objective.reward_side.base import Baseline, Scope
from agentrl.objective.reward_side.groups import group_sizes, others_means
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.peers import (
    cell_means,
    cell_means_of_others,
    first_visits,
    index_cells,
    or_own,
    turn_numbers,
)
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, total_returns, turn_rewards
from agentrl.objective.reward_side.scan import discounted_suffix_sums
from agentrl.objective.reward_side.states import known_states
from agentrl.trajectory import BoolArray


@dataclass(frozen=True, slots=True)
class TurnMean(Baseline):
    """b_k = mean credit of the group's turns at index k, this one included (2505.11821; 2511.14846).

    Only trajectories that got as far are compared, so where the policy chooses when to stop the mean depends on what is
    being credited: biased.
    """

    scope: ClassVar[Scope] = "turn"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        values, counted = turn_numbers(x.batch, credit)
        means, known = cell_means(index_cells(x.batch), values, counted)
        return or_own(x.batch, Leveled(Level.TURN, means), known, credit)


@dataclass(frozen=True, slots=True)
class TurnLeaveOneOut(Baseline):
    """b_k = mean of G_k = sum_{j >= k} gamma^(j - k) r_j over the other trajectories of the group that got to index k;
    where none did, the mean of their whole returns.

    It depends on the other trajectories alone, so the gradient is unbiased. The returns are the rewards' own, whatever
    the credit is: a credit may have been pooled with this trajectory's. It is agentrl's own.
    """

    gamma: float = 1.0
    scope: ClassVar[Scope] = "turn"

    def __post_init__(self) -> None:
        within("baseline 'turn_leave_one_out'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        return _of_others(x.batch, rewards, credit, returns_from(x.batch, rewards, self.gamma))


@dataclass(frozen=True, slots=True)
class StateMean(Baseline):
    """b_k = mean credit of all turns of the group that began in the state of turn k, this one and repeated visits
    included (GiGPO, 2505.10978). A state that no other trajectory passed: advantage 0."""

    scope: ClassVar[Scope] = "state"

    @property
    def needs_states(self) -> bool:
        return True

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        batch = x.batch
        cells = known_states("baseline 'state_mean'", batch)
        values, counted = turn_numbers(batch, credit)
        means, _ = cell_means(cells, values, counted)
        is_first, _ = first_visits(batch, cells, counted)
        visitors = np.bincount(cells, is_first)[cells]
        return or_own(batch, Leveled(Level.TURN, means), visitors > 1, credit)


@dataclass(frozen=True, slots=True)
class StateLeaveOneOut(Baseline):
    """b_k = mean of G_k = sum_{j >= k} gamma^(j - k) r_j over the first visits of the other trajectories of the group
    to the state of turn k; where none came there, as turn_leave_one_out.

    Every choice among these depends on the state before turn k and on the other trajectories, so the gradient is
    unbiased; and the nearer the compared turns are to this one, the less variance is left. Repeated visits of one
    trajectory are not independent, which is why it counts once. It is agentrl's own.
    """

    gamma: float = 1.0
    scope: ClassVar[Scope] = "state"

    @property
    def needs_states(self) -> bool:
        return True

    def __post_init__(self) -> None:
        within("baseline 'state_leave_one_out'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        batch = x.batch
        cells = known_states("baseline 'state_leave_one_out'", batch)
        returns = returns_from(batch, rewards, self.gamma)
        is_first, own = first_visits(batch, cells, np.ones(len(cells), np.bool_))
        in_state, near = cell_means_of_others(cells, returns, is_first)
        return _of_others(batch, rewards, credit, returns, in_state[own], near[own])


@dataclass(frozen=True, slots=True)
class GroupTurnMean(Baseline):
    """b = mean credit of all turns of the group, this one included (IGPO, 2510.14967). A long trajectory counts for
    more than a short one: the mean is over turns."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        values, counted = turn_numbers(x.batch, credit)
        means, known = cell_means(x.batch.turn_groups, values, counted)
        return or_own(x.batch, Leveled(Level.TURN, means), known, credit)


def returns_from(batch: Batch, rewards: Rewards, gamma: float) -> Float64Array:
    """[K] discounted return from each turn on."""
    return discounted_suffix_sums(turn_rewards(batch, rewards), batch.turn_counts, gamma)


def _of_others(
    batch: Batch,
    rewards: Rewards,
    credit: Leveled,
    returns: Float64Array,
    nearest: Float64Array | None = None,
    known: BoolArray | None = None,
) -> Leveled:
    """`nearest` where it is known; else the others' mean return from this index on; else of their whole trajectories;
    and the credit itself where there are no others.

    Args:
        returns: [K] from each turn on.
        nearest, known: [K]
    """
    at_index, far = cell_means_of_others(index_cells(batch), returns, np.ones(len(returns), np.bool_))
    whole = others_means(batch, total_returns(batch, rewards))[batch.turn_trajectory]
    values = np.where(far, at_index, whole)
    if nearest is not None and known is not None:
        values = np.where(known, nearest, values)
    any_other = (group_sizes(batch) > 1)[batch.turn_trajectory]
    return or_own(batch, Leveled(Level.TURN, values), any_other, credit)
