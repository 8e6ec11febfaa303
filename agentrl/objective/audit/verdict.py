"""What an audit finds: an estimator's expected gradient beside the true one.

What comes in: both gradients and the variance, in one setting or more. What goes out: errors, scale, cosine, and a
verdict. Knows no objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from agentrl.objective.audit.measure import Measured
from agentrl.objective.batch import Float64Array

ROUNDING = 1e-9  # relative errors below it are float64's


class Verdict(StrEnum):
    UNBIASED = "unbiased"  # the expected gradient is the true one
    SCALED = "scaled"  # it is the true one times a number, which is a step size
    BIASED = "biased"
    OTHER = "another objective"  # it does not claim to be the gradient of E[R]


@dataclass(frozen=True, slots=True)
class Finding:
    """In one setting. `scale` s makes s times the true gradient what the estimate is along it."""

    setting: str
    error: float  # |expected - true| / |true|
    residual: float  # the same after the best scaling of the expected one: the sine of the angle between them
    cosine: float
    scale: float  # (expected . true) / |true|^2
    noise: float  # variance / (scale |true|)^2: how far one batch strays; inf where nothing points along the true one

    @classmethod
    def of(cls, setting: str, measured: Measured, true: Float64Array) -> Finding:
        got, length, true_length = measured.gradient, np.linalg.norm(measured.gradient), np.linalg.norm(true)
        cosine = float(got @ true / (length * true_length)) if length > 0 else 0.0
        along = got - (got @ true / true_length**2) * true
        scale = float(got @ true / true_length**2)
        return cls(
            setting=setting,
            error=float(np.linalg.norm(got - true) / true_length),
            residual=float(np.linalg.norm(along) / length) if length > 0 else 1.0,
            cosine=cosine,
            scale=scale,
            noise=measured.variance / (scale * float(true_length)) ** 2 if scale > 0 else float("inf"),
        )


def judge(findings: Sequence[Finding]) -> Verdict:
    """Over all settings."""
    if all(f.error < ROUNDING for f in findings):
        return Verdict.UNBIASED
    if all(f.residual < ROUNDING and f.scale > 0 for f in findings):
        return Verdict.SCALED
    return Verdict.BIASED
