"""Credit of branched rollouts, where several trajectories share their first turns.

What comes in: the node each turn is, as ids that the sampler gave. What goes out: returns of turns. Knows no sampler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.objective.batch import Batch
from agentrl.objective.reward_side.base import Credit
from agentrl.objective.reward_side.levels import Level, Leveled, sums_by
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, total_returns
from agentrl.objective.reward_side.states import known_nodes
from agentrl.trajectory import IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree(Credit):
    """Q_k = mean of R over the trajectories that share turn k (ARPO, 2507.19849); one that nobody shares gets its R."""

    needs_nodes: ClassVar[bool] = True

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        batch = x.batch
        nodes = known_nodes("credit 'tree'", batch)
        returns = total_returns(batch, rewards)[batch.turn_trajectory]
        counts = np.maximum(np.bincount(nodes), 1)
        return Leveled(Level.TURN, (sums_by(nodes, returns, 0) / counts)[nodes])


def trees(owner: str, batch: Batch) -> IntArray:
    """[T] ids >= 0, equal where trajectories share their first turn; one without turns is a tree of its own.

    Raises:
        ConfigError: no turn of the batch has a node id.
    """
    nodes = known_nodes(owner, batch)
    roots = int(nodes.max(initial=-1)) + 1 + np.arange(batch.n_trajectories)
    first = batch.turn_index == 0
    roots[batch.turn_trajectory[first]] = nodes[first]
    return roots
