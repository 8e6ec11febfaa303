"""Slot `regularize`: what is added to the loss beside the policy's.

What comes in: log-probs of the policy and of the reference. What goes out: [A] a penalty with gradient, or None. It
is aggregated with the policy loss's weights. d = log pi - log pi_ref throughout; coef 0 needs no reference. Knows no
advantage. Entropy bonuses stand in `regularize_entropy`, penalties at chosen tokens in `regularize_tokens`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.errors import ConfigError
from agentrl.objective.component import at_least
from agentrl.objective.trajectory_side.base import Regularizer
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import LARGEST_LOG_RATIO, bounded_exp, log_ratio
from agentrl.objective.trajectory_side.regularize_entropy import AdaptiveEntropy, Entropy
from agentrl.objective.trajectory_side.regularize_tokens import BehaviorK2, KlCov, PositiveNll

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class KlPenalty(Regularizer):
    """coef times an estimate of KL(pi, ref)."""

    coef: float = 0.0
    name: ClassVar[str]

    def __post_init__(self) -> None:
        at_least(f"regularize {self.name!r}", 0.0, coef=self.coef)

    @property
    def needs_reference(self) -> bool:
        return self.coef > 0

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        if not self.needs_reference:
            return None
        if inputs.reference_logprobs is None:
            raise ConfigError(
                f"regularize {self.name!r} needs log-probs of a reference; give the learner a reference, or set "
                "coef = 0"
            )
        return self.coef * self.of(inputs, inputs.logprobs - inputs.reference_logprobs)

    @abstractmethod
    def of(self, inputs: LossInputs, d: Tensor) -> Tensor:
        """[A] the estimate, from d."""


@dataclass(frozen=True, slots=True)
class K1Penalty(KlPenalty):
    """coef d. Its value is an unbiased estimate of KL(pi, ref) on-policy; its gradient is that of log pi, whose
    expectation on-policy is 0, whatever the reference: as a loss it is for comparison, and `kl_in_reward` for use."""

    name: ClassVar[str] = "k1"

    def of(self, inputs: LossInputs, d: Tensor) -> Tensor:
        return d


@dataclass(frozen=True, slots=True)
class K2Penalty(KlPenalty):
    """coef d^2 / 2; on-policy its gradient is that of KL(pi, ref)."""

    name: ClassVar[str] = "k2"

    def of(self, inputs: LossInputs, d: Tensor) -> Tensor:
        return k2(d)


@dataclass(frozen=True, slots=True)
class K3Penalty(KlPenalty):
    """coef k3, k3 = exp(-d) - 1 + d: GRPO's KL loss (2402.03300).

    Its value is an unbiased estimate of KL(pi, ref) for samples of pi; its gradient, 1 - exp(-d), is that of
    KL(ref, pi).
    """

    name: ClassVar[str] = "k3"

    def of(self, inputs: LossInputs, d: Tensor) -> Tensor:
        return k3(d)


@dataclass(frozen=True, slots=True)
class K3Unbiased(KlPenalty):
    """coef r k3, r = pi / pi_anchor of each token, with its gradient (DeepSeek-V3.2, 2512.02556; TRL,
    `use_bias_correction_kl`): value and gradient, r d, are those of KL(pi, ref) for samples of the anchor."""

    name: ClassVar[str] = "k3_unbiased"

    def of(self, inputs: LossInputs, d: Tensor) -> Tensor:
        return bounded_exp(log_ratio(inputs)) * k3(d)


@dataclass(frozen=True, slots=True)
class K3Plus(KlPenalty):
    """coef k3 with the gradient of k2, d: on-policy, an unbiased value of low variance and the right gradient (verl,
    `k3+`)."""

    name: ClassVar[str] = "k3_plus"

    def of(self, inputs: LossInputs, d: Tensor) -> Tensor:
        carrier = k2(d)
        return carrier - carrier.detach() + k3(d.detach())


def k2(log_ratio: Tensor) -> Tensor:
    """d^2 / 2."""
    return 0.5 * log_ratio**2


def k3(log_ratio: Tensor) -> Tensor:
    """exp(-d) - 1 + d >= 0: for samples of p and d = log p - log q, an estimate of KL(p, q).

    Below -LARGEST_LOG_RATIO, where exp would leave float32, it is constant.
    """
    d = log_ratio.clamp(min=-LARGEST_LOG_RATIO)
    return (-d).expm1() + d


REGULARIZERS: Mapping[str, type] = {
    "k1": K1Penalty,
    "k2": K2Penalty,
    "k3": K3Penalty,
    "k3_unbiased": K3Unbiased,
    "k3_plus": K3Plus,
    "entropy": Entropy,
    "adaptive_entropy": AdaptiveEntropy,
    "kl_cov": KlCov,
    "positive_nll": PositiveNll,
    "behavior_k2": BehaviorK2,
}
