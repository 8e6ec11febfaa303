"""Slot `ratio`: how much likelier the new policy makes what was sampled.

What comes in: log-probs of the policy now, and of the anchor. What goes out: [A] what the gate weighs the advantage
with; its gradient is the policy gradient's. Knows no advantage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.objective.trajectory_side.base import Ratio
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.segments import sum_over

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_LOG_RATIO = 20.0  # nats; exp beyond it is no weight any more, and no gradient flows there


@dataclass(frozen=True, slots=True)
class NoRatio(Ratio):
    """log pi: the loss is -A log pi, whose gradient is right on-policy only."""

    corrects: ClassVar[bool] = False

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        return inputs.logprobs


@dataclass(frozen=True, slots=True)
class TokenRatio(Ratio):
    """r_t = pi(a_t) / pi_anchor(a_t)."""

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        return bounded_exp(inputs.logprobs - anchor)


@dataclass(frozen=True, slots=True)
class SequenceProduct(Ratio):
    """r = prod_t pi(a_t) / pi_anchor(a_t) over the trajectory's action tokens, the same at each of them."""

    of_sequence: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        return bounded_exp(sum_over(inputs.sequence_ids, inputs, inputs.logprobs - anchor))


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """exp, of at most LARGEST_LOG_RATIO either way."""
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


RATIOS: Mapping[str, type] = {"none": NoRatio, "token": TokenRatio, "sequence_product": SequenceProduct}
