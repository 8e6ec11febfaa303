"""Slot `scale`: what the centred credit is divided by.

What comes in: rewards and the centred credit. What goes out: the scaled credit. Here: statistics of the group's or the
batch's returns; the files beside this one have whitening and the spreads of turns. Each trajectory counts once, unless
a component says that it counts tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.objective.component import at_least
from agentrl.objective.reward_side.base import Scale, Scope
from agentrl.objective.reward_side.groups import EQUAL, all_equal, group_means, group_stds
from agentrl.objective.reward_side.levels import Level, Leveled, divide, multiply
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, total_returns
from agentrl.objective.reward_side.scale_turns import GroupTurnStd, StateStd, TurnStd
from agentrl.objective.reward_side.whiten import Whiten


@dataclass(frozen=True, slots=True)
class NoScale(Scale):
    """As it is."""

    scope: ClassVar[Scope] = "none"

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        return centred


@dataclass(frozen=True, slots=True)
class GroupStd(Scale):
    """Divide by std_g + eps, std over the group's returns with n - 1 (2402.03300; TRL and verl take n - 1 too).

    eps is verl's; TRL has 1e-4.
    """

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
    """Divide by std + eps, std over the batch's returns with n - 1, whatever the baseline took off (2508.08221)."""

    eps: float = 1e-6
    scope: ClassVar[Scope] = "batch"
    of_returns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("scale 'batch_std'", 1e-12, eps=self.eps)

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        returns = total_returns(x.batch, rewards)
        std = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
        return Leveled(centred.level, centred.values / (std + self.eps))


@dataclass(frozen=True, slots=True)
class GroupMeanScale(Scale):
    """Divide by the group's mean return, 0 where that is not positive (MaxRL, 2602.02710): hard tasks weigh more, as
    in maximum likelihood. Meant for returns that are never negative."""

    scope: ClassVar[Scope] = "group"

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        means = group_means(x.batch, total_returns(x.batch, rewards))
        factors = np.divide(1.0, means, out=np.zeros_like(means), where=means > EQUAL)
        return multiply(x.batch, centred, Leveled(Level.TRAJECTORY, factors))


@dataclass(frozen=True, slots=True)
class NonzeroFrac(Scale):
    """Times B/(B - M): B trajectories in the batch, M of them in groups whose returns are all equal (GPG, 2504.02546).

    It makes up for the share of the batch that says nothing. verl divides by the number of nonzero scores instead,
    which also counts wrong answers in mixed groups as silent; this is the paper's.
    """

    scope: ClassVar[Scope] = "batch"

    def __call__(self, x: RewardInputs, rewards: Rewards, centred: Leveled) -> Leveled:
        silent = all_equal(x.batch, total_returns(x.batch, rewards))
        saying = len(silent) - float(silent.sum())
        return Leveled(centred.level, centred.values * (len(silent) / saying if saying else 0.0))


SCALES: Mapping[str, type] = {
    "none": NoScale,
    "group_std": GroupStd,
    "batch_std": BatchStd,
    "whiten": Whiten,
    "group_mean": GroupMeanScale,
    "nonzero_frac": NonzeroFrac,
    "turn_std": TurnStd,
    "state_std": StateStd,
    "group_turn_std": GroupTurnStd,
}
