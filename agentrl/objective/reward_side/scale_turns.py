"""Scales that divide by the spread among the turns that a turn was compared with.

What comes in: the credit of turns, centred by the baseline of the same name. What goes out: the scaled one. A turn
counts once, however many tokens it has; where the credit of tokens differs, a turn's is that of its first token. Where
all are equal, or there is one alone, the result is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agentrl.objective.component import at_least
from agentrl.objective.reward_side.base import Scale, Scope
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.peers import cell_stds, divide_by_spread, index_cells, turn_numbers
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards
from agentrl.objective.reward_side.states import known_states
from agentrl.trajectory import IntArray


@dataclass(frozen=True, slots=True)
class TurnStd(Scale):
    """Divide by std + eps, std (n - 1) of the centred credit of the group's turns at the same index (2511.14846)."""

    eps: float = 1e-6
    scope: ClassVar[Scope] = "turn"

    def __post_init__(self) -> None:
        at_least("scale 'turn_std'", 1e-12, eps=self.eps)

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        return _scaled(x, centred, index_cells(x.batch), self.eps)


@dataclass(frozen=True, slots=True)
class StateStd(Scale):
    """Divide by std + eps, std (n - 1) of the centred credit of the group's turns in the same state, repeated visits
    included (GiGPO, 2505.10978)."""

    eps: float = 1e-6
    scope: ClassVar[Scope] = "state"

    def __post_init__(self) -> None:
        at_least("scale 'state_std'", 1e-12, eps=self.eps)

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        return _scaled(x, centred, known_states("scale 'state_std'", x.batch), self.eps)


@dataclass(frozen=True, slots=True)
class GroupTurnStd(Scale):
    """Divide by std + eps, std (n - 1) of the centred credit of all turns of the group (IGPO, 2510.14967)."""

    eps: float = 1e-6
    scope: ClassVar[Scope] = "group"

    def __post_init__(self) -> None:
        at_least("scale 'group_turn_std'", 1e-12, eps=self.eps)

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        return _scaled(x, centred, x.batch.turn_groups, self.eps)


def _scaled(x: RewardInputs, centred: Leveled, cells: IntArray, eps: float) -> Leveled:
    values, counted = turn_numbers(x.batch, centred)
    spread = Leveled(Level.TURN, cell_stds(cells, values, counted))
    return divide_by_spread(x.batch, centred, spread, eps)
