"""Slot `scale`: what the centred credit is divided by.

What comes in: rewards and the centred credit. What goes out: the scaled credit. Each trajectory counts once, unless a
component says that it counts tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from agentrl.objective.component import at_least
from agentrl.objective.reward_side.base import Scale, Scope
from agentrl.objective.reward_side.groups import group_stds
from agentrl.objective.reward_side.levels import Level, Leveled, divide
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, total_returns


@dataclass(frozen=True, slots=True)
class NoScale(Scale):
    """As it is."""

    scope: ClassVar[Scope] = "none"

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        return centred


@dataclass(frozen=True, slots=True)
class GroupStd(Scale):
    """Divide by std_g + eps, std over the group's returns with n - 1 (as TRL and verl do)."""

    eps: float = 1e-6
    scope: ClassVar[Scope] = "group"
    of_returns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("scale 'group_std'", 1e-12, eps=self.eps)

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        stds = group_stds(x.batch, total_returns(x.batch, rewards))
        return divide(x.batch, centred, Leveled(Level.TRAJECTORY, stds + self.eps))


@dataclass(frozen=True, slots=True)
class BatchStd(Scale):
    """Divide by std + eps, std over the batch's returns with n - 1, whatever the baseline took off."""

    eps: float = 1e-6
    scope: ClassVar[Scope] = "batch"
    of_returns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("scale 'batch_std'", 1e-12, eps=self.eps)

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        returns = total_returns(x.batch, rewards)
        std = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
        return Leveled(centred.level, centred.values / (std + self.eps))


SCALES: Mapping[str, type] = {"none": NoScale, "group_std": GroupStd, "batch_std": BatchStd}
