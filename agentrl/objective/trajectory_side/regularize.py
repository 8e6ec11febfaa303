"""Slot `regularize`: what is added to the loss beside the policy's.

What comes in: log-probs of the policy and of the reference. What goes out: [A] a penalty with gradient, or None. It
is aggregated with the policy loss's weights. Knows no advantage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError
from agentrl.objective.component import at_least
from agentrl.objective.trajectory_side.base import Regularizer
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import LARGEST_LOG_RATIO

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class K3Penalty(Regularizer):
    """coef k3, k3 = exp(-d) - 1 + d with d = log pi - log pi_ref: GRPO's KL loss. coef 0 needs no reference.

    Its value is an unbiased estimate of KL(pi, ref) for samples of pi; its gradient, 1 - exp(-d), is not that of the
    KL.
    """

    coef: float = 0.0

    def __post_init__(self) -> None:
        at_least("regularize 'k3'", 0.0, coef=self.coef)

    @property
    def needs_reference(self) -> bool:
        return self.coef > 0

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        if not self.needs_reference:
            return None
        return self.coef * k3(inputs.logprobs - _reference("k3", inputs))


@dataclass(frozen=True, slots=True)
class K2Penalty(Regularizer):
    """coef d^2 / 2, d = log pi - log pi_ref; on-policy its gradient is that of KL(pi, ref). coef 0: no reference."""

    coef: float = 0.0

    def __post_init__(self) -> None:
        at_least("regularize 'k2'", 0.0, coef=self.coef)

    @property
    def needs_reference(self) -> bool:
        return self.coef > 0

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        if not self.needs_reference:
            return None
        return self.coef * 0.5 * (inputs.logprobs - _reference("k2", inputs)) ** 2


def k3(log_ratio: Tensor) -> Tensor:
    """exp(-d) - 1 + d >= 0: for samples of p and d = log p - log q, an estimate of KL(p, q)."""
    d = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return (-d).expm1() + d


def _reference(name: str, inputs: LossInputs) -> Tensor:
    if inputs.reference_logprobs is None:
        raise ConfigError(
            f"regularize {name!r} needs log-probs of a reference; give the learner a reference, or set coef = 0"
        )
    return inputs.reference_logprobs


REGULARIZERS: Mapping[str, type] = {"k3": K3Penalty, "k2": K2Penalty}
