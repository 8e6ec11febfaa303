"""A baseline of all turns of the other trajectories, the nearer ones weighing more.

What comes in: rewards, and the state each turn began in. What goes out: the number to subtract from each turn. Knows
no credit but where there is nobody to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import at_least, within
from agentrl.objective.reward_side.base import Baseline, Scope
from agentrl.objective.reward_side.baseline_turns import returns_from
from agentrl.objective.reward_side.groups import group_sizes, others_means
from agentrl.objective.reward_side.levels import Level, Leveled, sums_by
from agentrl.objective.reward_side.peers import index_cells, or_own
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, total_returns
from agentrl.objective.reward_side.states import known_states
from agentrl.trajectory import IntArray


@dataclass(frozen=True, slots=True)
class PeerReturns(Baseline):
    """b_k = sum_j w_j G_j / sum_j w_j over all turns j of the group's other trajectories, G_j the return from j on,
    discounted by gamma, w_j = group + index [j has turn k's index] + state [j began in turn k's state].

    Ours. It depends on the other trajectories and on how turn k was reached, so the gradient is unbiased whatever the
    weights. The nearest turns alone are few, and a mean of few adds its own variance; the others steady it. Where all
    weights are 0 it is the mean of the others' whole returns. state = 0 needs no state ids.
    """

    state: float = 1.0
    index: float = 0.3
    group: float = 0.1
    gamma: float = 1.0
    scope: ClassVar[Scope] = "turn"

    def __post_init__(self) -> None:
        at_least("baseline 'peer_returns'", 0.0, state=self.state, index=self.index, group=self.group)
        within("baseline 'peer_returns'", 0.0, 1.0, gamma=self.gamma)
        if self.state + self.index + self.group == 0:
            raise ConfigError(
                "baseline 'peer_returns': state, index and group are all 0, so no turn weighs anything: set one of "
                "them, or baseline = 'leave_one_out'"
            )

    @property
    def needs_states(self) -> bool:
        return self.state > 0

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        batch = x.batch
        returns = returns_from(batch, rewards, self.gamma)
        sums, weights = np.zeros(len(returns)), np.zeros(len(returns))
        for weight, cells in self._cells(batch):
            sums += weight * _sums_of_others(batch, cells, returns)
            weights += weight * _sums_of_others(batch, cells, np.ones(len(returns)))
        near = weights > 1e-9
        whole = others_means(batch, total_returns(batch, rewards))[batch.turn_trajectory]
        values = np.where(near, sums / np.where(near, weights, 1.0), whole)
        any_other = (group_sizes(batch) > 1)[batch.turn_trajectory]
        return or_own(batch, Leveled(Level.TURN, values), any_other, credit)

    def _cells(self, batch: Batch) -> list[tuple[float, IntArray]]:
        """Each weight that is not 0, and [K] the ids equal among the turns that it is for."""
        out = [(self.group, batch.turn_groups), (self.index, index_cells(batch))]
        if self.state > 0:
            out.append((self.state, known_states("baseline 'peer_returns'", batch)))
        return [(weight, cells) for weight, cells in out if weight > 0]


def _sums_of_others(batch: Batch, cells: IntArray, x: Float64Array) -> Float64Array:
    """[K] sum of x over the turns of each turn's cell that are of other trajectories."""
    mine = np.unique(batch.turn_trajectory * (int(cells.max(initial=0)) + 1) + cells, return_inverse=True)[1]
    out: Float64Array = sums_by(cells, x, 0)[cells] - sums_by(mine, x, 0)[mine]
    return out
