"""Slot `ratio`: how much likelier the new policy makes what was sampled.

What comes in: log-probs of the policy now, and of the anchor. What goes out: [A] what the gate weighs the advantage
with; its gradient is the policy gradient's. Knows no advantage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from agentrl.objective.trajectory_side.base import Ratio
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.objective.trajectory_side.segments import mean_over, sum_over, turn_keys

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_LOG_RATIO = 20.0  # nats; exp beyond it is no weight any more, and no gradient flows there
_ROUNDING = 1e-6  # nats, of exp in float32


@dataclass(frozen=True, slots=True)
class NoRatio(Ratio):
    """log pi: the loss is -A log pi, whose gradient is right on-policy only."""

    corrects: ClassVar[bool] = False

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        return inputs.logprobs


@dataclass(frozen=True, slots=True)
class TokenRatio(Ratio):
    """r_t = pi(a_t) / pi_anchor(a_t) (PPO, 1707.06347)."""

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        return bounded_exp(inputs.logprobs - anchor)


@dataclass(frozen=True, slots=True)
class TurnRatio(Ratio):
    """s_k = exp(mean_t log r_t) over the action tokens of turn k, the same at each of them: GSPO's ratio (2507.18071),
    taken over turns, so that it is as fine as the credit of turns."""

    per: ClassVar[Literal["token", "turn", "sequence"]] = "turn"
    whole: ClassVar[bool] = True

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        return bounded_exp(mean_over(turn_keys(inputs), inputs.logprobs - anchor))


@dataclass(frozen=True, slots=True)
class SequenceGeo(Ratio):
    """s = exp(mean_t log r_t) over the trajectory's action tokens, the same at each of them (GSPO, 2507.18071).
    It is the geometric mean of the tokens' ratios: no importance weight, but of the same size at every length."""

    per: ClassVar[Literal["token", "turn", "sequence"]] = "sequence"
    of_sequence: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        return bounded_exp(mean_over(inputs.sequence_ids, inputs.logprobs - anchor))


@dataclass(frozen=True, slots=True)
class SequenceProduct(Ratio):
    """r = prod_t pi(a_t) / pi_anchor(a_t) over the trajectory's action tokens, the same at each of them: the importance
    weight of the whole trajectory."""

    per: ClassVar[Literal["token", "turn", "sequence"]] = "sequence"
    of_sequence: ClassVar[bool] = True
    is_product: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        return bounded_exp(sum_over(inputs.sequence_ids, inputs.logprobs - anchor))


@dataclass(frozen=True, slots=True)
class SeqTokenSg(Ratio):
    """s_t = sg(s) pi(a_t) / sg(pi(a_t)), s as in sequence_geo (GSPO-token, 2507.18071, eq. 14): the trajectory's value,
    and each token's own gradient, so that advantages may differ within it."""

    per: ClassVar[Literal["token", "turn", "sequence"]] = "sequence"
    whole: ClassVar[bool] = True

    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        now = inputs.logprobs.detach()
        value = bounded_exp(mean_over(inputs.sequence_ids, now - anchor))
        return value * (inputs.logprobs - now).where(~at_bound(value), 0.0).exp()


def log_ratio(inputs: LossInputs) -> Tensor:
    """[A] log pi(a_t) / pi_anchor(a_t), nats, with gradient."""
    anchor = inputs.old_logprobs if inputs.anchor_logprobs is None else inputs.anchor_logprobs
    return inputs.logprobs - anchor


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """exp, of at most LARGEST_LOG_RATIO either way."""
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def at_bound(ratio: Tensor) -> Tensor:
    """[A] bool: `bounded_exp` is at its bound, so that no gradient flows through the ratio. A log-prob never is."""
    largest = math.exp(LARGEST_LOG_RATIO - _ROUNDING)
    return (ratio >= largest) | ((ratio > 0) & (ratio <= 1 / largest))


RATIOS: Mapping[str, type] = {
    "none": NoRatio,
    "token": TokenRatio,
    "turn": TurnRatio,
    "sequence_geo": SequenceGeo,
    "sequence_product": SequenceProduct,
    "seq_token_sg": SeqTokenSg,
}
