"""Penalties that need no reference: at tokens chosen beforehand, or towards the sampler.

What comes in: log-probs of the policy, the anchor and the sampler, and columns of chosen tokens. What goes out: [A] a
penalty with gradient. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from agentrl.objective.batch import Batch, Float64Array, Scores
from agentrl.objective.component import at_least, within
from agentrl.objective.trajectory_side.base import Regularizer
from agentrl.objective.trajectory_side.covariance import highest
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import log_ratio
from agentrl.trajectory import FloatArray, succeeded

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class KlCov(Regularizer):
    """coef |log pi_anchor - log pi| at the max(1, share n) of the n loss tokens of highest covariance between advantage
    and log-prob (KL-Cov, 2505.22617, as released), chosen over the whole step from the log-probs at its start.

    At pi = pi_anchor it has no gradient: it acts from a step's second update on.
    """

    coef: float = 1.0
    share: float = 0.0002
    needs_logprobs: ClassVar[bool] = True
    column: ClassVar[str] = "kl_cov"

    def __post_init__(self) -> None:
        at_least("regularize 'kl_cov'", 0.0, coef=self.coef)
        within("regularize 'kl_cov'", 0.0, 1.0, share=self.share)

    def columns(self, batch: Batch, scores: Scores, advantages: Float64Array) -> Mapping[str, FloatArray]:
        return {self.column: highest("regularize 'kl_cov'", batch, scores, advantages, self.share)}

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        return self.coef * log_ratio(inputs).abs() * inputs.column(self.column)


@dataclass(frozen=True, slots=True)
class PositiveNll(Regularizer):
    """-coef 1[right] log pi(a_t), right: the trajectory succeeded (VAPO, 2504.05118).

    It is aggregated like the policy loss, over all tokens; the paper divides by those of right trajectories alone.
    """

    coef: float = 0.1
    column: ClassVar[str] = "positive_nll"

    def __post_init__(self) -> None:
        at_least("regularize 'positive_nll'", 0.0, coef=self.coef)

    def columns(self, batch: Batch, scores: Scores, advantages: Float64Array) -> Mapping[str, FloatArray]:
        right = np.array([succeeded(t) for t in batch.trajectories], np.float32)
        return {self.column: right[batch.token_trajectory] * batch.loss_mask}

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        return -self.coef * inputs.column(self.column) * inputs.logprobs


@dataclass(frozen=True, slots=True)
class BehaviorK2(Regularizer):
    """coef (log pi(a_t) - log mu(a_t))^2, mu the sampler (prime-rl's default loss; half of it is DRO's, 2405.19107)."""

    coef: float

    def __post_init__(self) -> None:
        at_least("regularize 'behavior_k2'", 0.0, coef=self.coef)

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        return self.coef * (inputs.logprobs - inputs.behavior_logprobs) ** 2
