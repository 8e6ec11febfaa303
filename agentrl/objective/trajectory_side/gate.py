"""Slot `gate`: how far a sample may push.

What comes in: [A] ratio and advantage. What goes out: [A] the policy loss, and which tokens the gate has cut off.
Knows neither where the ratio came from nor how tokens are weighted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from agentrl.objective.component import at_least

if TYPE_CHECKING:
    from torch import Tensor


class Gate(Protocol):
    needs_ratio: ClassVar[bool]

    def loss(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        """[A] to be minimised."""
        ...

    def clipped(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        """[A] bool: no gradient passes."""
        ...


@dataclass(frozen=True, slots=True)
class NoGate:
    """-r A."""

    needs_ratio: ClassVar[bool] = False

    def loss(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        return -ratio * advantages

    def clipped(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        return advantages.new_zeros(advantages.shape) > 0


@dataclass(frozen=True, slots=True)
class Clip:
    """-min(r A, clip(r, 1 - low, 1 + high) A) (PPO, 1707.06347; low != high: DAPO's clip-higher, 2503.14476)."""

    low: float = 0.2
    high: float = 0.2
    needs_ratio: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("gate 'clip'", 0.0, low=self.low, high=self.high)

    def loss(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        bounded = ratio.clamp(1 - self.low, 1 + self.high)
        return -(ratio * advantages).minimum(bounded * advantages)

    def clipped(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        too_high = (advantages > 0) & (ratio > 1 + self.high)
        too_low = (advantages < 0) & (ratio < 1 - self.low)
        return too_high | too_low


GATES: Mapping[str, type] = {"none": NoGate, "clip": Clip}
