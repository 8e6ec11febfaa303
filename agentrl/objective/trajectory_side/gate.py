"""Slot `gate`: how far a sample may push.

What comes in: [A] ratio and advantage. What goes out: [A] the policy loss, and which tokens the gate has cut off.
Knows neither where the ratio came from nor how tokens are weighted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.objective.component import at_least
from agentrl.objective.trajectory_side.base import Gate, Gated
from agentrl.objective.trajectory_side.inputs import LossInputs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class NoGate(Gate):
    """-r A."""

    needs_ratio: ClassVar[bool] = False

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        return Gated(-ratio * inputs.advantages, inputs.advantages.new_zeros(inputs.advantages.shape) > 0)


@dataclass(frozen=True, slots=True)
class Clip(Gate):
    """-min(r A, clip(r, 1 - low, 1 + high) A) (PPO, 1707.06347; low != high: DAPO's clip-higher, 2503.14476)."""

    low: float = 0.2
    high: float = 0.2

    def __post_init__(self) -> None:
        at_least("gate 'clip'", 0.0, low=self.low, high=self.high)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        a = inputs.advantages
        loss = -(ratio * a).minimum(ratio.clamp(1 - self.low, 1 + self.high) * a)
        return Gated(loss, ((a > 0) & (ratio > 1 + self.high)) | ((a < 0) & (ratio < 1 - self.low)))


GATES: Mapping[str, type] = {"none": NoGate, "clip": Clip}
