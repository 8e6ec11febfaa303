"""Slot `critic`: who predicts returns, what it is taught and with which loss.

What comes in: rewards and the critic's values at the step's start; then its values now. What goes out: returns to
predict, and [A] a loss. Knows no model: the learner owns the head.

The loss is coef 0.5 max((V - G)^2, (clip(V, V_old - clip, V_old + clip) - G)^2), PPO's clipped one (1707.06347): a
value that has already moved by more than `clip` towards its target gets no gradient. It is weighed as the policy's
loss is, so that cutting an update into micro-batches changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Batch, Float64Array, Scores
from agentrl.objective.component import at_least, within
from agentrl.objective.reward_side.gae import lambda_returns, token_values, turn_values
from agentrl.objective.reward_side.levels import sums_of_runs
from agentrl.objective.trajectory_side.base import Critic
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.trajectory import FloatArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class NoCritic(Critic):
    """Nobody."""

    kind: ClassVar[str] = "none"

    def targets(self, batch: Batch, scores: Scores, rewards: Float64Array) -> FloatArray | None:
        return None

    def loss(self, inputs: LossInputs) -> Tensor | None:
        return None


@dataclass(frozen=True, slots=True)
class TokenHead(Critic):
    """V_t at every action token, taught G_t = r_t + gamma ((1 - lam) V_{t+1} + lam G_{t+1}).

    lam and gamma are its own: VC-PPO (2503.01491) teaches it with lam = 1, whatever the policy's credit uses.
    """

    coef: float = 0.1
    clip: float = 0.2
    gamma: float = 1.0
    lam: float = 1.0
    kind: ClassVar[str] = "token"

    def __post_init__(self) -> None:
        _check("critic 'token_head'", self.coef, self.clip, self.gamma, self.lam)

    @property
    def discount(self) -> float:
        return self.gamma

    def targets(self, batch: Batch, scores: Scores, rewards: Float64Array) -> FloatArray | None:
        values = token_values("critic 'token_head'", batch, scores)
        out = np.full(batch.n_tokens, np.nan, np.float32)
        out[batch.action_mask] = lambda_returns(rewards, values, batch.action_counts, self.gamma, self.lam)
        return out

    def loss(self, inputs: LossInputs) -> Tensor | None:
        return _clipped_loss("critic 'token_head'", inputs, self.coef, self.clip)


@dataclass(frozen=True, slots=True)
class TurnHead(Critic):
    """V_k at each turn's first action token alone, taught G_k = r_k + gamma ((1 - lam) V_{k+1} + lam G_{k+1}).

    Steps are turns (Turn-PPO, 2512.17008). A turn without tokens is not asked; its reward belongs to the action before.
    """

    coef: float = 0.1
    clip: float = 0.2
    gamma: float = 1.0
    lam: float = 1.0
    kind: ClassVar[str] = "turn"

    def __post_init__(self) -> None:
        _check("critic 'turn_head'", self.coef, self.clip, self.gamma, self.lam)

    @property
    def discount(self) -> float:
        return self.gamma

    def targets(self, batch: Batch, scores: Scores, rewards: Float64Array) -> FloatArray | None:
        values, known = turn_values("critic 'turn_head'", batch, scores)
        steps = sums_of_runs(batch.turn_lengths, rewards)
        returns = lambda_returns(steps, values, batch.turn_counts, self.gamma, self.lam, known=known)
        out = np.full(batch.n_tokens, np.nan, np.float32)
        out[batch.turn_starts[known]] = returns[known]
        return out

    def loss(self, inputs: LossInputs) -> Tensor | None:
        return _clipped_loss("critic 'turn_head'", inputs, self.coef, self.clip)


def _clipped_loss(owner: str, inputs: LossInputs, coef: float, clip: float) -> Tensor:
    values, old, returns = inputs.values, inputs.old_values, inputs.returns
    if values is None or old is None or returns is None:
        raise ConfigError(
            f"{owner} compares the values now with those at the step's start and with the returns, and one of these is "
            "missing; give the learner a value head, and LossInputs all three"
        )
    asked = ~returns.isnan()
    target = returns.where(asked, 0.0)
    near = old + (values - old).clamp(-clip, clip)
    return (0.5 * coef) * ((values - target) ** 2).maximum((near - target) ** 2).where(asked, 0.0)


def _check(owner: str, coef: float, clip: float, gamma: float, lam: float) -> None:
    at_least(owner, 0.0, coef=coef, clip=clip)
    within(owner, 0.0, 1.0, gamma=gamma, lam=lam)


CRITICS: Mapping[str, type] = {"none": NoCritic, "token_head": TokenHead, "turn_head": TurnHead}
