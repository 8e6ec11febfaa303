"""Gates of the form -w A log pi(a_t): w is made of the ratio and has no gradient.

What comes in: [A] ratio and advantage. What goes out: [A] the policy loss, and which tokens it passes no gradient to.
The gradient is each token's own, so w may be one number a trajectory while advantages differ within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.objective.component import at_least, within
from agentrl.objective.trajectory_side.base import Gate, Gated
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import bounded_exp, log_ratio

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class DetachedClip(Gate):
    """-sg(clip(r, floor, cap)) A log pi: no token loses its gradient (CISPO, 2506.13585).

    Both bounds are absolute, and there is none below by default, as in TRL and ScaleRL (2510.13786); verl clips to
    [1 - low, 1 + high].
    """

    floor: float = 0.0
    cap: float = 5.0
    detaches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("gate 'detached_clip'", _SMALLEST, cap=self.cap)
        within("gate 'detached_clip'", 0.0, self.cap, floor=self.floor)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        return weighed(inputs, ratio.detach().clamp(self.floor, self.cap))


@dataclass(frozen=True, slots=True)
class ProbMask(Gate):
    """-m sg(min(r, cap)) A log pi; m = 0 where A > 0 and p - q > high, or A < 0 and q - p > low, else 1, with p and q
    the probabilities of the token under the policy and the anchor (DPPO with binary total variation, 2602.04879).

    The paper's anchor is the sampler: anchor = "behavior". cap is the paper's truncation (section 5.4); prime-rl has
    none, verl's default is 3.
    """

    low: float = 0.2
    high: float = 0.2
    cap: float = 20.0
    of_tokens: ClassVar[bool] = True
    detaches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("gate 'prob_mask'", 0.0, 1.0, low=self.low, high=self.high)
        at_least("gate 'prob_mask'", 1.0, cap=self.cap)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        a, now = inputs.advantages, inputs.logprobs.detach()
        rise = now.clamp(max=0.0).exp() - (now - log_ratio(inputs).detach()).clamp(max=0.0).exp()
        outside = ((a > 0) & (rise > self.high)) | ((a < 0) & (-rise > self.low))
        return weighed(inputs, ratio.detach().clamp(max=self.cap).where(~outside, 0.0))


@dataclass(frozen=True, slots=True)
class PositiveFree(Gate):
    """-w A log pi; w = 1 where A >= 0, sg(min(r, cap)) elsewhere, r the product over the trajectory (TOPR, 2503.14286).
    The paper's sign is that of the reward, which is what A is without a baseline."""

    cap: float = 1.0
    of_sequence: ClassVar[bool] = True
    of_products: ClassVar[bool] = True
    detaches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("gate 'positive_free'", _SMALLEST, cap=self.cap)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        return weighed(inputs, ratio.detach().clamp(max=self.cap).where(inputs.advantages < 0, 1.0))


@dataclass(frozen=True, slots=True)
class GammaKernel(Gate):
    """-sg(phi(W)) A log pi, phi(W) = W^k exp(lam (1 - W)), W the product over the trajectory, k and lam by the sign of
    A (VESPO, 2602.10693). phi(1) = 1."""

    k_positive: float = 2.0
    lam_positive: float = 3.0
    k_negative: float = 3.0
    lam_negative: float = 2.0
    of_sequence: ClassVar[bool] = True
    of_products: ClassVar[bool] = True
    detaches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("gate 'gamma_kernel'", 0.0, k_positive=self.k_positive, k_negative=self.k_negative)
        at_least("gate 'gamma_kernel'", 0.0, lam_positive=self.lam_positive, lam_negative=self.lam_negative)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        a, w = inputs.advantages, ratio.detach()
        k = a.new_full(a.shape, self.k_positive).where(a >= 0, self.k_negative)
        lam = a.new_full(a.shape, self.lam_positive).where(a >= 0, self.lam_negative)
        return weighed(inputs, bounded_exp(k * w.log() + lam * (1 - w)))


def weighed(inputs: LossInputs, weight: Tensor) -> Gated:
    """-weight A log pi."""
    return Gated(-weight * inputs.advantages * inputs.logprobs, weight == 0)
