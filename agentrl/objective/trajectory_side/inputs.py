"""What a loss reads and gives.

What comes in: one micro-batch of loss tokens. What goes out: its part of the update's loss and of the diagnosis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from agentrl.errors import ConfigError
from agentrl.objective.batch import Memory

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LossInputs:
    """One micro-batch. Tokens of weight 0 are masked: `loss.policy_loss` takes them out first of all."""

    logprobs: Tensor  # [A] nats, under the weights being trained; carries the gradient
    old_logprobs: Tensor  # [A] nats, under the weights the step started from; no gradient. On-policy: logprobs.detach()
    behavior_logprobs: Tensor  # [A] nats, as sampled
    advantages: Tensor  # [A]
    weights: Tensor  # [A] from Objective.token_weights
    sequence_ids: Tensor  # [A] int64, which trajectory: dense in the micro-batch
    turn_ids: Tensor  # [A] int64, index of the turn in its trajectory
    anchor_logprobs: Tensor | None = None  # [A] nats, what ratios compare with, as `anchor` chose; None: old_logprobs
    reference_logprobs: Tensor | None = None  # [A] nats
    entropies: Tensor | None = None  # [A] nats, of the distribution each token was chosen from
    values: Tensor | None = None  # [A] what the critic expects now; carries the gradient
    old_values: Tensor | None = None  # [A] what it expected at the step's start
    returns: Tensor | None = None  # [A] what it is to predict; NaN where it is not asked
    columns: Mapping[str, Tensor] = field(default_factory=dict)  # [A] each, as the components prepared them
    memory: Memory = field(default_factory=dict)  # of earlier steps

    def trained(self) -> LossInputs:
        """Without the tokens of weight 0, so that no number of theirs reaches a loss, a statistic or a gradient."""
        used = self.weights > 0
        kept: dict[str, Any] = {"columns": {name: x[used] for name, x in self.columns.items()}}
        for f in fields(self):
            x = getattr(self, f.name)
            if f.name not in ("columns", "memory") and x is not None:
                kept[f.name] = x[used]
        return replace(self, **kept)

    def column(self, name: str) -> Tensor:
        """[A] a prepared column.

        Raises:
            ConfigError: it is absent.
        """
        if name not in self.columns:
            raise ConfigError(f"the loss reads the column {name!r}; give LossInputs the columns of the credited batch")
        return self.columns[name]


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The micro-batch's part of the loss. Parts of one step add up; so do `sums`; of `maxima` take the largest."""

    loss: Tensor  # scalar
    sums: Mapping[str, Tensor]  # scalars, no gradient: sums over loss tokens; "tokens" counts them
    maxima: Mapping[str, Tensor]  # scalars, no gradient
    samples: Mapping[str, Tensor] = field(default_factory=dict)  # [loss tokens] each: for the step's quantiles
