"""Slot `mismatch`: corrections for tokens that the current policy did not sample.

What comes in: log-probs now, at the step's start and as sampled. What goes out: [A] a factor on the policy loss,
without gradient; several multiply. Knows no ratio and no gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.objective.component import at_least
from agentrl.objective.trajectory_side.base import Mismatch
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import bounded_exp

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenTis(Mismatch):
    """min(pi_old(a_t) / mu(a_t), cap): truncated importance sampling, with no lower cut (fengyao 2025-08; verl)."""

    cap: float = 2.0

    def __post_init__(self) -> None:
        at_least("mismatch 'token_tis'", 1.0, cap=self.cap)

    def __call__(self, inputs: LossInputs) -> Tensor:
        return sampler_ratio(inputs).clamp(max=self.cap)


def sampler_ratio(inputs: LossInputs) -> Tensor:
    """[A] pi_old / mu, the learner's probability of each token over the sampler's; no gradient."""
    return bounded_exp(inputs.old_logprobs.detach() - inputs.behavior_logprobs)


MISMATCHES: Mapping[str, type] = {"token_tis": TokenTis}
