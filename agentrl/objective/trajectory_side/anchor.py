"""Slot `anchor`: the policy that the ratio compares with.

What comes in: log-probs at the step's start and as sampled. What goes out: [A] log-probs without gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.objective.trajectory_side.base import Anchor
from agentrl.objective.trajectory_side.inputs import LossInputs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class OldAnchor(Anchor):
    """pi_old: the learner's numbers at the step's start (PPO; with a `mismatch`, decoupled PPO's proximal policy)."""

    of_sampler: ClassVar[bool] = False

    def __call__(self, inputs: LossInputs) -> Tensor:
        return inputs.old_logprobs


@dataclass(frozen=True, slots=True)
class BehaviorAnchor(Anchor):
    """mu: the sampler's own numbers, so that one ratio corrects for staleness and for the engine at once."""

    of_sampler: ClassVar[bool] = True

    def __call__(self, inputs: LossInputs) -> Tensor:
        return inputs.behavior_logprobs


ANCHORS: Mapping[str, type] = {"old": OldAnchor, "behavior": BehaviorAnchor}
