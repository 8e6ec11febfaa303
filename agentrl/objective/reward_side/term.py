"""Slot `terms`: advantages that are added to the one of credit, baseline and scale.

What comes in: a batch and its rewards. What goes out: numbers at the level they differ on. Knows no loss. A term
compares whatever it compares by itself: no baseline and no scale is applied to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Batch
from agentrl.objective.component import at_least, within
from agentrl.objective.reward_side.base import Scope, Term
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.peers import cell_means, cell_stds, divide_by_spread, index_cells
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, Which, total_returns, turn_rewards
from agentrl.objective.reward_side.scan import discounted_suffix_sums
from agentrl.objective.reward_side.states import histories, known_states
from agentrl.objective.reward_side.tree import trees
from agentrl.trajectory import IntArray

STD_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class AnchorState(Term):
    """weight z(G_k), G_k = sum_{j >= k} gamma^(j - k) r_j, z within the group's turns that began in the same state.

    GiGPO's step-level advantage (2505.10978); with `std` false G_k is centred only. Every visit counts, also several of
    one trajectory; a state visited once gives 0. history > 1 compares on the last `history` states (one level of HGPO,
    2602.22817).
    """

    weight: float = 1.0
    gamma: float = 0.95
    std: bool = True
    history: int = 1
    scope: ClassVar[Scope] = "state"
    needs_states: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("term 'anchor_state'", 0.0, 1.0, gamma=self.gamma)
        at_least("term 'anchor_state'", 0.0, weight=self.weight)
        at_least("term 'anchor_state'", 1, history=self.history)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        batch = x.batch
        anchors = histories(batch, known_states("term 'anchor_state'", batch), self.history)
        returns = discounted_suffix_sums(turn_rewards(batch, rewards), batch.turn_counts, self.gamma)
        return _standing(batch, anchors, Leveled(Level.TURN, returns), self.weight, std=self.std)


@dataclass(frozen=True, slots=True)
class TurnRelative(Term):
    """weight z(r_k), r_k the turn's own reward, z within the group's turns of the same index (MT-GRPO, 2505.11821).

    With `last` false a trajectory's last turn gets none (it answers for the outcome alone), but stays among the peers.
    Where the policy decides when to stop, who reaches turn k depends on it, and dividing by the std is biased besides.
    """

    weight: float = 1.0
    parts: Which = "process"
    std: bool = True
    last: bool = False
    scope: ClassVar[Scope] = "turn"
    reads_parts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("term 'turn_relative'", 0.0, weight=self.weight)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        batch = x.batch
        own = Leveled(Level.TURN, rewards.only(self.parts).turns)
        out = _standing(batch, index_cells(batch), own, self.weight, std=self.std)
        if self.last:
            return out
        goes_on = batch.turn_index < batch.turn_counts[batch.turn_trajectory] - 1
        return Leveled(Level.TURN, out.values * goes_on)


@dataclass(frozen=True, slots=True)
class Teacher(Term):
    """coef (log pi_teacher(a_t) - log pi(a_t)) at each action token: on-policy distillation beside the reward."""

    coef: float = 1.0
    scope: ClassVar[Scope] = "own"
    of_tokens: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("term 'teacher'", 0.0, coef=self.coef)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        scores, mask = x.scores, x.batch.action_mask
        if scores.teacher is None or scores.logprobs is None:
            raise ConfigError(
                "term 'teacher' needs log-probs of the policy and of a teacher; give the learner a teacher, or remove "
                "the term"
            )
        return Leveled(Level.ACTION, self.coef * (scores.teacher[mask].astype(np.float64) - scores.logprobs[mask]))


@dataclass(frozen=True, slots=True)
class TreeIntra(Term):
    """weight z(R), z within the trajectories that share their first turn (Tree-GRPO's intra-tree part, 2509.21240).

    Its inter-tree part is baseline and scale over the group.
    """

    weight: float = 1.0
    std: bool = True
    varies: ClassVar[bool] = False
    needs_nodes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("term 'tree_intra'", 0.0, weight=self.weight)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        roots = trees("term 'tree_intra'", x.batch)
        returns = Leveled(Level.TRAJECTORY, total_returns(x.batch, rewards))
        return _standing(x.batch, roots, returns, self.weight, std=self.std)


def _standing(batch: Batch, cells: IntArray, x: Leveled, weight: float, *, std: bool) -> Leveled:
    """weight times x less the mean of its cell, itself included; with `std` over the cell's std as well. Alone: 0."""
    counted = np.ones(len(cells), np.bool_)
    means, _ = cell_means(cells, x.values, counted)
    centred = Leveled(x.level, weight * (x.values - means))
    if not std:
        return centred
    return divide_by_spread(batch, centred, Leveled(x.level, cell_stds(cells, x.values, counted)), STD_EPS)


TERMS: Mapping[str, type] = {
    "anchor_state": AnchorState,
    "turn_relative": TurnRelative,
    "teacher": Teacher,
    "tree_intra": TreeIntra,
}
