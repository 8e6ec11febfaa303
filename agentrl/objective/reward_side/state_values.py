"""Credit with values of states that the group itself measured.

What comes in: rewards, and the state each turn began in. What goes out: returns of turns. Knows no critic: a state's
value is a mean over the trajectories that passed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.objective.component import within
from agentrl.objective.reward_side.base import Credit
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.peers import first_visits
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, turn_rewards
from agentrl.objective.reward_side.scan import discounted_suffix_sums, next_in_run
from agentrl.objective.reward_side.states import known_states, pool


@dataclass(frozen=True, slots=True, kw_only=True)
class StateValues(Credit):
    """Q_k = r_k + gamma V(s_{k+1}), V(s) = mean over the group's trajectories that passed s of their Q there.

    Ours: state_pooled taken to its end. There the returns that are averaged at a state are single samples from it on;
    here each of them is averaged again at the next state that others share, and so on. What a trajectory did before it
    came to s says nothing of what follows, so where equal ids mean equal futures and no state leads back to itself,
    E[V(s)] is the value of s, whoever passed it, by induction from the last states back; so Q_k has the mean of
    r_k + gamma G_{k+1} given s_k and a_k. Without shared states it is the turn's reward-to-go. Where states do come
    back, a trajectory counts at each by its first visit, and the averaging ends after as many passes as the group met
    states.
    """

    gamma: float = 1.0
    needs_states: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("credit 'state_values'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        batch = x.batch
        states = known_states("credit 'state_values'", batch)
        steps = turn_rewards(batch, rewards)
        values = discounted_suffix_sums(steps, batch.turn_counts, self.gamma)
        visits = first_visits(batch, states, np.ones(len(states), np.bool_))
        met = batch.turn_groups[np.unique(states, return_index=True)[1]]  # [states] in which group
        passes = np.bincount(met)[batch.turn_groups]  # [K] no chain of states that does not come back is longer
        for done in range(int(passes.max(initial=0))):
            averaged = steps + self.gamma * next_in_run(pool(states, visits, values), batch.turn_counts)
            averaged = np.where(done < passes, averaged, values)
            if np.array_equal(averaged, values):
                break
            values = averaged
        return Leveled(Level.TURN, values)
