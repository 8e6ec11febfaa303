"""What the loss is computed from, and what it gives.

Tensors are flat over the action tokens of one micro-batch, [A]: no padding, no observation tokens. This file and the
components beside it use tensor methods only, so that reading a spec loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LossInputs:
    """One micro-batch. A token with weight 0 is masked: it is in no loss and no diagnostic."""

    logprobs: Tensor  # [A] nats, under the weights being trained; carries the gradient
    old_logprobs: Tensor  # [A] nats, under the weights the step started from; no gradient. On-policy: logprobs.detach()
    behavior_logprobs: Tensor  # [A] nats, as sampled
    advantages: Tensor  # [A]
    weights: Tensor  # [A] from Objective.token_weights
    sequence_ids: Tensor  # [A] int64, which trajectory: its index in the batch
    turn_ids: Tensor  # [A] int64, index of the turn in its trajectory
    reference_logprobs: Tensor | None = None  # [A] nats
    entropies: Tensor | None = None  # [A] nats, of the distribution each token was chosen from


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The micro-batch's part of the loss. Parts of one step add up; so do `sums`; of `maxima` take the largest."""

    loss: Tensor  # scalar
    sums: Mapping[str, Tensor]  # scalars, no gradient: sums over loss tokens; "tokens" counts them
    maxima: Mapping[str, Tensor]  # scalars, no gradient
