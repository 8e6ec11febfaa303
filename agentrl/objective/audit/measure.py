"""The gradient that an objective makes of each batch, and its mean and variance over all of them.

What comes in: an objective and a setting. What goes out: its expected gradient in the policy's logits, and the trace of
its covariance. The loss's derivative in each token's log-probability comes from autograd, and from there on the scores
are exact: the losses of all batches are added up and differentiated in one pass, which `LossOutput` allows since no
token's loss reads another trajectory's tokens. All float64. Knows no true gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agentrl.objective.audit.cast import Column
from agentrl.objective.audit.draws import Setting
from agentrl.objective.audit.scoring import CriticKind, memory_after_a_step, scores_of
from agentrl.objective.batch import Credited, Float64Array
from agentrl.objective.objective import Objective
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.trajectory import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Measured:
    """Of the estimate from one batch, which is minus the gradient of its loss."""

    gradient: Float64Array  # [D] expected
    variance: float  # trace of the covariance


def measure(objective: Objective, setting: Setting, *, critic: CriticKind = "exact") -> Measured:
    """Expected gradient and variance over all batches of the setting, at the memory that one step leaves.

    Args:
        critic: whose values are read, if any are: the true ones, or those of a critic that errs
    """
    estimates = estimate(objective, setting, critic=critic)
    chances = np.array([draw.chance for draw in setting.draws])
    mean = chances @ estimates
    return Measured(mean, float(chances @ ((estimates - mean) ** 2).sum(1)))


def estimate(
    objective: Objective, setting: Setting, *, critic: CriticKind = "exact", at_once: bool = True
) -> Float64Array:
    """[draws, D] the estimate of each batch.

    Args:
        at_once: differentiate all batches in one pass; False: one after another, with the same result
    """
    memory = memory_after_a_step(objective.spec, setting)
    parts = []
    for index, draw in enumerate(setting.draws):
        batch = objective.select(draw.groups) if objective.spec.filters else setting.batches[index]
        if batch.loss_counts.any():
            credited = objective.credit(batch, scores_of(setting, batch, critic), memory)
            parts.append(_Part(index, credited, objective.token_weights(batch), np.flatnonzero(batch.loss_mask)))
    out = np.zeros((len(setting.draws), setting.size))
    for some in [parts] if at_once else [[part] for part in parts]:
        if some:
            owners = np.concatenate([np.full(len(part.at), part.draw) for part in some])
            scores = np.concatenate([part.column(setting, "scores") for part in some])
            np.add.at(out, owners, -_derivatives(objective, setting, critic, some)[:, None] * scores)
    return out


@dataclass(frozen=True, slots=True)
class _Part:
    """One batch, ready for its loss."""

    draw: int
    credited: Credited
    weights: Float64Array  # [N]
    at: IntArray  # [L] positions of the loss tokens in the batch

    def column(self, setting: Setting, name: Column) -> Float64Array:
        """[L, ...]"""
        batch = self.credited.batch
        return setting.column(batch, name)[batch.loss_mask[batch.action_mask]]


def _derivatives(objective: Objective, setting: Setting, critic: CriticKind, parts: Sequence[_Part]) -> Float64Array:
    """[L of all parts] derivative of the loss in each token's log-probability."""

    def joined(pick: Callable[[_Part], npt.NDArray[Any]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([pick(part) for part in parts]))

    def prepared(name: str) -> torch.Tensor:
        return joined(lambda part: part.credited.columns[name][part.at].astype(np.float64))

    first = np.cumsum([0, *(part.credited.batch.n_trajectories for part in parts)])
    firsts = {part.draw: int(start) for part, start in zip(parts, first[:-1], strict=True)}
    logprobs = joined(lambda part: part.column(setting, "now")).requires_grad_()
    values = joined(lambda part: part.column(setting, critic))
    inputs = LossInputs(
        logprobs=logprobs,
        old_logprobs=joined(lambda part: part.column(setting, "old")),
        behavior_logprobs=joined(lambda part: part.column(setting, "sampler")),
        advantages=joined(lambda part: part.credited.advantages[part.at]),
        weights=joined(lambda part: part.weights[part.at]),
        sequence_ids=joined(lambda part: part.credited.batch.token_trajectory[part.at] + firsts[part.draw]),
        turn_ids=joined(lambda part: part.credited.batch.turn_ids[part.at]),
        reference_logprobs=joined(lambda part: part.column(setting, "reference")),
        values=values,
        old_values=values,
        returns=None if parts[0].credited.returns is None else joined(lambda part: _returns(part)[part.at]),
        columns={name: prepared(name) for name in parts[0].credited.columns},
        memory=parts[0].credited.memory,
    )
    (gradient,) = torch.autograd.grad(objective.loss(inputs).loss, logprobs, allow_unused=True)
    return np.zeros(len(logprobs)) if gradient is None else gradient.numpy()


def _returns(part: _Part) -> FloatArray:
    assert part.credited.returns is not None
    return part.credited.returns
