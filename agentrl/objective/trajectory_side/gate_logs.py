"""Gates that work on the logarithm of the ratio.

What comes in: log-probs of the policy and of the anchor, [A] advantage. What goes out: [A] the policy loss, and which
tokens it passes no gradient to. They read the log-probs themselves: the ratio is bounded, its logarithm is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.objective.component import at_least, within
from agentrl.objective.trajectory_side.base import Gate, Gated
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import at_bound, bounded_exp, log_ratio
from agentrl.objective.trajectory_side.segments import mean_over, sum_over

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class LogspaceGeo(Gate):
    """-A exp(mean_t l_t) at each of the trajectory's tokens, l_t = min(log r_t, bound) where A > 0 and
    max(log r_t, -bound) where A < 0: clipped a token at a time, then the geometric mean (GMPO, 2507.20673)."""

    bound: float = 0.4
    of_tokens: ClassVar[bool] = True
    of_sequence: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("gate 'logspace_geo'", _SMALLEST, bound=self.bound)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        a = inputs.advantages
        logs, outside = clipped_logs(inputs, -self.bound, self.bound)
        s = bounded_exp(mean_over(inputs.sequence_ids, logs))
        return Gated(-a * s, outside | at_bound(s))


@dataclass(frozen=True, slots=True)
class LogClip(Gate):
    """-min(log r A, clip(log r, log(1 - low), log(1 + high)) A) (CPGD, 2505.12504): no r multiplies the gradient."""

    low: float = 0.2
    high: float = 0.2
    of_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("gate 'log_clip'", 0.0, 1 - _SMALLEST, low=self.low)
        at_least("gate 'log_clip'", 0.0, high=self.high)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        logs, outside = clipped_logs(inputs, math.log(1 - self.low), math.log(1 + self.high))
        return Gated(-inputs.advantages * logs, outside)


@dataclass(frozen=True, slots=True)
class L2LogRatio(Gate):
    """(A - tau sum_t log r_t)^2 at each of the trajectory's tokens (policy mirror descent: Kimi k1.5, 2501.12599;
    2602.05933). It pulls towards log r = A / tau, and back when that is passed; nothing is cut."""

    tau: float
    of_sequence: ClassVar[bool] = True
    of_products: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("gate 'l2_logratio'", _SMALLEST, tau=self.tau)

    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated:
        miss = inputs.advantages - self.tau * sum_over(inputs.sequence_ids, log_ratio(inputs))
        return Gated(miss**2, miss.new_zeros(miss.shape) > 0)


def clipped_logs(inputs: LossInputs, low: float, high: float) -> tuple[Tensor, Tensor]:
    """[A] log r_t, of at most `high` where A > 0 and at least `low` elsewhere; [A] bool, where that held it."""
    a, logs = inputs.advantages, log_ratio(inputs)
    outside = ((a > 0) & (logs > high)) | ((a < 0) & (logs < low))
    return logs.clamp(max=high).where(a > 0, logs.clamp(min=low)), outside
