"""Slot `critic`: who predicts returns, what it is taught and with which loss.

What comes in: rewards and the critic's values at the step's start; then its values now. What goes out: returns to
predict, and [A] a loss. Knows no model: the learner owns the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.objective.batch import Batch, Float64Array, Scores
from agentrl.objective.trajectory_side.base import Critic
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.trajectory import FloatArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class NoCritic(Critic):
    """Nobody."""

    kind: ClassVar[str] = "none"

    def targets(self, batch: Batch, scores: Scores, rewards: Float64Array) -> FloatArray | None:
        return None

    def loss(self, inputs: LossInputs) -> Tensor | None:
        return None


CRITICS: Mapping[str, type] = {"none": NoCritic}
