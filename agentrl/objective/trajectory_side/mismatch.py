"""Slot `mismatch`: corrections for tokens that the current policy did not sample.

What comes in: log-probs now, at the step's start and as sampled. What goes out: [A] a factor on the policy loss,
without gradient; several multiply. Knows no ratio and no gate.

Bands are on pi_old / mu, the learner's probability over the sampler's, and hold their ends. verl's options named by k1
have them on mu / pi_old: "0.2_2.0" there is 0.5 to 5 here. A token with factor 0 stays in the denominators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.objective.component import at_least, within
from agentrl.objective.trajectory_side.base import Mismatch
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.ratio import bounded_exp
from agentrl.objective.trajectory_side.segments import mean_over, sum_over

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenTis(Mismatch):
    """clip(pi_old(a_t) / mu(a_t), floor, cap): truncated importance sampling (fengyao 2025-08; verl), with no lower cut
    unless asked for (OpenRLHF has one)."""

    cap: float = 2.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        at_least("mismatch 'token_tis'", 1.0, cap=self.cap)
        within("mismatch 'token_tis'", 0.0, 1.0, floor=self.floor)

    def __call__(self, inputs: LossInputs) -> Tensor:
        return sampler_ratio(inputs).clamp(self.floor, self.cap)


@dataclass(frozen=True, slots=True)
class SequenceTis(Mismatch):
    """min(prod_t pi_old(a_t) / mu(a_t), cap) at each token of the trajectory: the weight of the whole trajectory,
    which has no bias but the cap's; that of token weights grows with the length (verl, `rollout_is=sequence`)."""

    cap: float = 2.0
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("mismatch 'sequence_tis'", 1.0, cap=self.cap)

    def __call__(self, inputs: LossInputs) -> Tensor:
        return sequence_ratio(inputs).clamp(max=self.cap)


@dataclass(frozen=True, slots=True)
class TokenMask(Mismatch):
    """pi_old(a_t) / mu(a_t) where it is in [low, high], else 0 (IcePop, 2510.18855)."""

    low: float = 0.5
    high: float = 5.0

    def __post_init__(self) -> None:
        check_band("mismatch 'token_mask'", self.low, self.high)

    def __call__(self, inputs: LossInputs) -> Tensor:
        return zero_outside(sampler_ratio(inputs), self.low, self.high)


@dataclass(frozen=True, slots=True)
class SequenceMask(Mismatch):
    """prod_t pi_old(a_t) / mu(a_t) where it is in [low, high], else 0, at each token of the trajectory (TRL's default,
    `sequence_mask`). The product leaves any band as a trajectory gets longer."""

    low: float = 0.0
    high: float = 3.0
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_band("mismatch 'sequence_mask'", self.low, self.high)

    def __call__(self, inputs: LossInputs) -> Tensor:
        return zero_outside(sequence_ratio(inputs), self.low, self.high)


@dataclass(frozen=True, slots=True)
class GeometricMask(Mismatch):
    """1 where exp(mean_t log(pi_old(a_t) / mu(a_t))) over the trajectory is in [low, high], else 0 (verl,
    `seq_mean_k1`).

    It drops and weighs nothing, so a weight may stand beside it (OpenRLHF, `seq-mask-tis`).
    """

    low: float = 0.99
    high: float = 1.01
    corrects_sampler: ClassVar[bool] = False
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_band("mismatch 'geometric_mask'", self.low, self.high)

    def __call__(self, inputs: LossInputs) -> Tensor:
        mean = bounded_exp(mean_over(inputs.sequence_ids, sampler_gap(inputs)))
        return ((mean >= self.low) & (mean <= self.high)).to(mean.dtype)


@dataclass(frozen=True, slots=True)
class Opsm(Mismatch):
    """0 where A < 0 and mean_t log(mu(a_t) / pi(a_t)) over the trajectory > delta, else 1 (DeepSeek-V3.2, 2512.02556).

    pi is the policy now and mu the sampler, as in the paper and TRL: it sees drift and engine gap together.
    """

    delta: float = 0.5
    corrects_sampler: ClassVar[bool] = False
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("mismatch 'opsm'", 0.0, delta=self.delta)

    def __call__(self, inputs: LossInputs) -> Tensor:
        gap = inputs.behavior_logprobs - inputs.logprobs.detach()
        drifted = mean_over(inputs.sequence_ids, gap) > self.delta
        return (~(drifted & (inputs.advantages < 0))).to(gap.dtype)


def sampler_gap(inputs: LossInputs) -> Tensor:
    """[A] log pi_old - log mu, nats; no gradient."""
    return inputs.old_logprobs.detach() - inputs.behavior_logprobs


def sampler_ratio(inputs: LossInputs) -> Tensor:
    """[A] pi_old / mu, the learner's probability of each token over the sampler's; no gradient."""
    return bounded_exp(sampler_gap(inputs))


def sequence_ratio(inputs: LossInputs) -> Tensor:
    """[A] the product of `sampler_ratio` over the trajectory, at each of its tokens."""
    return bounded_exp(sum_over(inputs.sequence_ids, sampler_gap(inputs)))


def zero_outside(ratio: Tensor, low: float, high: float) -> Tensor:
    """[A] the ratio where it is in [low, high], else 0."""
    return ratio.where((ratio >= low) & (ratio <= high), 0.0)


def check_band(owner: str, low: float, high: float) -> None:
    """Refuse bounds that would drop what both sides see alike.

    Raises:
        ConfigError: 1 is not in [low, high].
    """
    within(owner, 0.0, 1.0, low=low)
    at_least(owner, 1.0, high=high)


MISMATCHES: Mapping[str, type] = {
    "token_tis": TokenTis,
    "sequence_tis": SequenceTis,
    "token_mask": TokenMask,
    "sequence_mask": SequenceMask,
    "geometric_mask": GeometricMask,
    "opsm": Opsm,
}
