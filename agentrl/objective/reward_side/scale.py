"""Slot `scale`: what the centred credit is divided by.

What comes in: [T] the return of each trajectory. What goes out: the divisors. Each trajectory counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import at_least
from agentrl.objective.reward_side.baseline import Scope
from agentrl.objective.reward_side.groups import group_stds
from agentrl.objective.reward_side.levels import Level, Leveled


class Scale(Protocol):
    scope: ClassVar[Scope]

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled: ...


@dataclass(frozen=True, slots=True)
class NoScale:
    """Divide by 1."""

    scope: ClassVar[Scope] = "none"

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled:
        return Leveled(Level.TRAJECTORY, np.ones_like(returns))


@dataclass(frozen=True, slots=True)
class GroupStd:
    """Divide by std_g + eps, std over the group's returns with n - 1 (as TRL and verl do)."""

    eps: float = 1e-6
    scope: ClassVar[Scope] = "group"

    def __post_init__(self) -> None:
        at_least("scale 'group_std'", 1e-12, eps=self.eps)

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled:
        return Leveled(Level.TRAJECTORY, group_stds(batch, returns) + self.eps)


@dataclass(frozen=True, slots=True)
class BatchStd:
    """Divide by std + eps, std over the batch's returns with n - 1, whatever the baseline took off."""

    eps: float = 1e-6
    scope: ClassVar[Scope] = "batch"

    def __post_init__(self) -> None:
        at_least("scale 'batch_std'", 1e-12, eps=self.eps)

    def __call__(self, batch: Batch, returns: Float64Array) -> Leveled:
        std = returns.std(ddof=1) if len(returns) > 1 else 0.0
        return Leveled(Level.TRAJECTORY, np.full_like(returns, std + self.eps))


SCALES: Mapping[str, type] = {"none": NoScale, "group_std": GroupStd, "batch_std": BatchStd}
