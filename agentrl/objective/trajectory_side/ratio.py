"""Slot `ratio`: how much likelier the new policy makes what was sampled.

What comes in: log-probs of the policy now and at the step's start. What goes out: [A] what the gate weighs the
advantage with; its gradient is the policy gradient's. Knows no advantage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from agentrl.objective.trajectory_side.inputs import LossInputs

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_LOG_RATIO = 20.0  # nats; exp beyond it is no weight any more, and no gradient flows there


class Ratio(Protocol):
    corrects: ClassVar[bool]  # stays right when the policy has moved since the step began
    of_sequence: ClassVar[bool]  # one number a trajectory; needs all its tokens in one micro-batch

    def __call__(self, inputs: LossInputs) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class NoRatio:
    """log pi: the loss is -A log pi, whose gradient is right on-policy only."""

    corrects: ClassVar[bool] = False
    of_sequence: ClassVar[bool] = False

    def __call__(self, inputs: LossInputs) -> Tensor:
        return inputs.logprobs


@dataclass(frozen=True, slots=True)
class TokenRatio:
    """r_t = pi(a_t) / pi_old(a_t)."""

    corrects: ClassVar[bool] = True
    of_sequence: ClassVar[bool] = False

    def __call__(self, inputs: LossInputs) -> Tensor:
        return (inputs.logprobs - inputs.old_logprobs).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


@dataclass(frozen=True, slots=True)
class SequenceProduct:
    """r = prod_t pi(a_t) / pi_old(a_t) over the trajectory's action tokens, the same at each of them."""

    corrects: ClassVar[bool] = True
    of_sequence: ClassVar[bool] = True

    def __call__(self, inputs: LossInputs) -> Tensor:
        ids = inputs.sequence_ids
        count = int(ids.max()) + 1 if len(ids) else 0
        log_ratio = inputs.logprobs - inputs.old_logprobs
        sums = log_ratio.new_zeros(count).index_add(0, ids, log_ratio)
        return sums.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()[ids]


RATIOS: Mapping[str, type] = {"none": NoRatio, "token": TokenRatio, "sequence_product": SequenceProduct}
