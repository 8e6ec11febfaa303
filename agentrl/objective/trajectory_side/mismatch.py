"""Slot `mismatch`: correction for sampling under other numbers than the learner computes.

What comes in: log-probs at the step's start and as sampled. What goes out: [A] a factor on the policy loss, without
gradient, or None. Knows no advantage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentrl.objective.component import at_least
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import LARGEST_LOG_RATIO

if TYPE_CHECKING:
    from torch import Tensor


class Mismatch(Protocol):
    def __call__(self, inputs: LossInputs) -> Tensor | None: ...


@dataclass(frozen=True, slots=True)
class NoCorrection:
    """Trust the sampler's distribution to be the learner's."""

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        return None


@dataclass(frozen=True, slots=True)
class TokenTis:
    """min(pi_old(a_t) / mu(a_t), cap): truncated importance sampling, with no lower cut (fengyao 2025-08; verl)."""

    cap: float = 2.0

    def __post_init__(self) -> None:
        at_least("mismatch 'token_tis'", 1.0, cap=self.cap)

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        return sampler_ratio(inputs).clamp(max=self.cap)


def sampler_ratio(inputs: LossInputs) -> Tensor:
    """[A] pi_old / mu, the learner's probability of each token over the sampler's; no gradient."""
    log_ratio = inputs.old_logprobs.detach() - inputs.behavior_logprobs
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


MISMATCHES: Mapping[str, type] = {"none": NoCorrection, "token_tis": TokenTis}
