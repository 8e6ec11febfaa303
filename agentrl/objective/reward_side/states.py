"""Credit through states that trajectories of a group have in common.

What comes in: the state each turn began in, as ids that the environment gave. What goes out: returns of turns, and the
ids on which states are compared. Knows no environment: that equal ids mean equal futures is the environment's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import within
from agentrl.objective.reward_side.base import Credit
from agentrl.objective.reward_side.levels import Level, Leveled, sums_by
from agentrl.objective.reward_side.peers import first_visits
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, turn_rewards
from agentrl.objective.reward_side.scan import discounted_suffix_sums, next_in_run
from agentrl.trajectory import BoolArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePooled(Credit):
    """Q_k = r_k + gamma mean(own G_{k+1}, and the G of every other trajectory of the group on first reaching s_{k+1}).

    Ours. What follows a state is averaged over all trajectories that passed it, so the turn that led there answers for
    its own reward and for the state, not for the luck after it. Each trajectory counts once (its first visit), and a
    return after a first visit says nothing of how the state was reached; so where equal ids mean equal futures, Q_k has
    the mean of r_k + gamma G_{k+1} given s_k and a_k, at less variance. A state that nobody shares gives the turn's own
    reward-to-go.
    """

    gamma: float = 1.0
    needs_states: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("credit 'state_pooled'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        batch = x.batch
        steps = turn_rewards(batch, rewards)
        returns = discounted_suffix_sums(steps, batch.turn_counts, self.gamma)
        states = known_states("credit 'state_pooled'", batch)
        pooled = pool(states, first_visits(batch, states, np.ones(len(states), np.bool_)), returns)
        return Leveled(Level.TURN, steps + self.gamma * next_in_run(pooled, batch.turn_counts))


def known_states(owner: str, batch: Batch) -> IntArray:
    """[K] ids >= 0, equal where turns of one group began in the same state; a turn without an id is a state of its own.

    Raises:
        ConfigError: no turn of the batch has an id.
    """
    return _named(
        batch.turn_states,
        f"{owner} compares turns that began in the same state, and no turn of the batch has a state id; let the "
        "environment give info['state_id'], or choose a component that needs none",
    )


def known_nodes(owner: str, batch: Batch) -> IntArray:
    """[K] ids >= 0, equal where trajectories of one group share a sampled turn; a turn without an id is its own.

    Raises:
        ConfigError: no turn of the batch has an id.
    """
    return _named(
        batch.turn_nodes,
        f"{owner} compares branches of one rollout, and no turn of the batch has a node id; choose a sampler that "
        "branches, or a component that needs no branches",
    )


def histories(batch: Batch, states: IntArray, length: int) -> IntArray:
    """[K] ids, equal where the last `length` states are: this turn's, and those before it as far as there are any."""
    keys = states
    for back in range(1, length):
        earlier = np.full(len(states), -1)
        reaches = np.flatnonzero(batch.turn_index >= back)
        earlier[reaches] = states[reaches - back]
        keys = _pairs(keys, earlier)
    return keys


def pool(states: IntArray, visits: tuple[BoolArray, IntArray], returns: Float64Array) -> Float64Array:
    """[K] mean of the turn's return and, for each other trajectory, its return on first reaching the turn's state.

    Args:
        visits: what `first_visits` gives for these states
    """
    is_first, own_first = visits
    sums, counts = sums_by(states[is_first], returns[is_first], 0), np.bincount(states[is_first])
    pooled: Float64Array = (sums[states] - returns[own_first] + returns) / counts[states]
    return pooled


def _pairs(a: IntArray, b: IntArray) -> IntArray:
    """[n] dense ids of the pairs (a, b); b >= -1."""
    width = int(b.max(initial=-1)) + 2
    ids: IntArray = np.unique(a * width + b + 1, return_inverse=True)[1]
    return ids


def _named(ids: IntArray, complaint: str) -> IntArray:
    nameless = ids < 0
    if len(ids) and nameless.all():
        raise ConfigError(complaint)
    own = int(ids.max(initial=-1)) + 1 + np.arange(len(ids))
    return np.where(nameless, own, ids)
