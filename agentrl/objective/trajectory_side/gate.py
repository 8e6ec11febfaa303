"""Slot `gate`: how far a sample may push.

What comes in: [A] ratio and advantage. What goes out: [A] the policy loss, and which tokens it passes no gradient to.
Knows neither where the ratio came from nor how tokens are weighted. Gates that weigh with a ratio without gradient
stand in `gate_weights`, those that work on its logarithm in `gate_logs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.objective.batch import Batch, Float64Array, Scores
from agentrl.objective.component import at_least, within
from agentrl.objective.trajectory_side.base import Gate, Gated
from agentrl.objective.trajectory_side.covariance import random_within
from agentrl.objective.trajectory_side.gate_logs import L2LogRatio, LogClip, LogspaceGeo
from agentrl.objective.trajectory_side.gate_weights import DetachedClip, GammaKernel, PositiveFree, ProbMask
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import at_bound
from agentrl.trajectory import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_TAU = 1e-6


@dataclass(frozen=True, slots=True)
class NoGate(Gate):
    """-r A."""

    needs_ratio: ClassVar[bool] = False

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        return Gated(-ratio * inputs.advantages, at_bound(ratio))


@dataclass(frozen=True, slots=True)
class Clip(Gate):
    """-min(r A, clip(r, 1 - low, 1 + high) A) (PPO, 1707.06347; low != high: DAPO's clip-higher, 2503.14476)."""

    low: float = 0.2
    high: float = 0.2

    def __post_init__(self) -> None:
        at_least("gate 'clip'", 0.0, low=self.low, high=self.high)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        return clipped(inputs.advantages, ratio, self.low, self.high, float("inf"))


@dataclass(frozen=True, slots=True)
class DualClip(Gate):
    """As clip; where A < 0, at most cap |A|: max(min(r A, clip(r, 1 - low, 1 + high) A), cap A), negated (1912.09729).

    At the cap and beyond it there is no gradient.
    """

    low: float = 0.2
    high: float = 0.2
    cap: float = 3.0

    def __post_init__(self) -> None:
        at_least("gate 'dual_clip'", 0.0, low=self.low, high=self.high)
        at_least("gate 'dual_clip'", 1.0, cap=self.cap)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        return clipped(inputs.advantages, ratio, self.low, self.high, self.cap)


@dataclass(frozen=True, slots=True)
class TwoSided(Gate):
    """-min(min(r, delta) A, clip(r, 1 - low, 1 + high) A) (INTELLECT-2, 2505.07291).

    With delta >= 1 + high it bounds nothing but r where A < 0: it is dual_clip with cap = delta.
    """

    low: float = 0.2
    high: float = 0.2
    delta: float = 4.0

    def __post_init__(self) -> None:
        at_least("gate 'two_sided'", 0.0, low=self.low, high=self.high)
        at_least("gate 'two_sided'", 1.0 + self.high, delta=self.delta)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        return clipped(inputs.advantages, ratio, self.low, self.high, self.delta)


@dataclass(frozen=True, slots=True)
class Sigmoid(Gate):
    """-A (4 / tau) sigmoid(tau (r - 1)), tau by the sign of A (SAPO, 2511.20347).

    Its slope in r is 1 at r = 1 for any tau and fades on both sides; nothing is cut until it rounds to 0.
    """

    tau_positive: float = 1.0
    tau_negative: float = 1.05

    def __post_init__(self) -> None:
        at_least("gate 'sigmoid'", _SMALLEST_TAU, tau_positive=self.tau_positive, tau_negative=self.tau_negative)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        a = inputs.advantages
        tau = a.new_full(a.shape, self.tau_positive).where(a > 0, self.tau_negative)
        s = (tau * (ratio - 1)).sigmoid()
        flat = s.detach() * (1 - s.detach()) == 0
        return Gated(-a * 4 / tau * s, flat | at_bound(ratio))


@dataclass(frozen=True, slots=True)
class ClipCov(Gate):
    """As clip, and 0 at max(1, share n) tokens drawn from those with cov_low < cov_t < cov_high (Clip-Cov, 2505.22617).

    cov_t = (A_t - mean A)(log pi(a_t) - mean log pi), means over the n loss tokens of the whole step, log pi at its
    start; the same contents of a step give the same draw. verl draws anew for each micro-batch.
    """

    low: float = 0.2
    high: float = 0.2
    share: float = 0.0002
    cov_low: float = 1.0
    cov_high: float = 5.0
    of_tokens: ClassVar[bool] = True  # with a ratio of several tokens the others' losses would train a drawn one
    needs_logprobs: ClassVar[bool] = True
    column: ClassVar[str] = "clip_cov"

    def __post_init__(self) -> None:
        at_least("gate 'clip_cov'", 0.0, low=self.low, high=self.high)
        within("gate 'clip_cov'", 0.0, 1.0, share=self.share)
        at_least("gate 'clip_cov'", self.cov_low, cov_high=self.cov_high)

    def columns(self, batch: Batch, scores: Scores, advantages: Float64Array) -> Mapping[str, FloatArray]:
        drawn = random_within("gate 'clip_cov'", batch, scores, advantages, self.share, self.cov_low, self.cov_high)
        return {self.column: drawn}

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        gated = clipped(inputs.advantages, ratio, self.low, self.high, float("inf"))
        drawn = inputs.column(self.column) > 0
        return Gated(gated.loss.where(~drawn, 0.0), gated.cut | drawn)


def clipped(a: Tensor, ratio: Tensor, low: float, high: float, cap: float) -> Gated:
    """-A min(r, 1 + high) where A > 0, -A min(max(r, 1 - low), cap) elsewhere; no gradient at the cap."""
    up = ratio.clamp(max=1 + high)
    down = ratio.clamp(min=1 - low).where(ratio < cap, cap)
    cut = ((a > 0) & (ratio > 1 + high)) | ((a < 0) & ((ratio < 1 - low) | (ratio >= cap)))
    return Gated(-a * up.where(a > 0, down), cut | at_bound(ratio))


GATES: Mapping[str, type] = {
    "none": NoGate,
    "clip": Clip,
    "dual_clip": DualClip,
    "two_sided": TwoSided,
    "detached_clip": DetachedClip,
    "sigmoid": Sigmoid,
    "logspace_geo": LogspaceGeo,
    "prob_mask": ProbMask,
    "positive_free": PositiveFree,
    "l2_logratio": L2LogRatio,
    "log_clip": LogClip,
    "gamma_kernel": GammaKernel,
    "clip_cov": ClipCov,
}
