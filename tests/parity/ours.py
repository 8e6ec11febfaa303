"""agentrl's side of a comparison: components by name, values and gradients in float64.

What comes in: slots, and a random batch. What goes out: advantages, or a loss and its gradient. Knows no peer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from agentrl.objective import LossInputs, LossOutput, Objective, load_spec
from tests.parity.batches import Sample

PLAIN: dict[str, Any] = {  # every slot at its simplest
    "filters": ["truncated_mask"],
    "credit": "outcome_broadcast",
    "baseline": "none",
    "ratio": "token",
    "gate": "none",
    "aggregate": "token_mean",
}


class Loss(NamedTuple):
    """A number and what it does to the log-probs (or values) it was made from."""

    value: float
    gradient: np.ndarray  # [N]


def objective(**slots: Any) -> Objective:
    """The plain objective with some slots changed; "none" stands for no step in a slot that is a list."""
    return Objective(load_spec("reinforce", {**PLAIN, **slots}))


def advantages(sample: Sample, memory: Any = None, **slots: Any) -> np.ndarray:
    """[N]"""
    return objective(**slots).credit(sample.batch, sample.scores, memory).advantages.astype(np.float64)


def loss(
    sample: Sample, advantages: np.ndarray | None = None, *, of: str = "logprobs", memory: Any = None, **slots: Any
) -> Loss:
    """The loss of the sample's loss tokens, and its gradient.

    Args:
        advantages: [N]; the sample's own, another for each token, where absent
        of: what the gradient is about: "logprobs", "values" or "entropies"
    """
    leaf = torch.tensor(getattr(sample, of), requires_grad=True)
    value = _output(sample, sample.advantages if advantages is None else advantages, {of: leaf}, memory, slots).loss
    (gradient,) = torch.autograd.grad(value + 0 * leaf.sum(), leaf)  # 0 where the loss does not read the leaf
    return Loss(value.item(), gradient.numpy())


def step(sample: Sample, preset: str, **overrides: Any) -> Loss:
    """A whole step of a preset: select, credit, loss. It must keep every episode."""
    method = Objective(load_spec(preset, overrides))
    batch = method.select(sample.groups)
    assert batch.n_tokens == sample.batch.n_tokens
    credited = method.credit(batch, sample.scores)
    returns = sample.returns if credited.returns is None else credited.returns
    leaf = torch.tensor(sample.logprobs, requires_grad=True)
    sample = replace(sample, batch=batch, returns=returns)
    value = method.loss(_inputs(method, sample, credited.advantages, {"logprobs": leaf}, {})).loss
    (gradient,) = torch.autograd.grad(value, leaf)
    return Loss(value.item(), gradient.numpy())


def diagnosis(sample: Sample, **slots: Any) -> dict[str, float]:
    """Means over loss tokens of what the loss reports beside itself."""
    sums = {name: x.item() for name, x in _output(sample, sample.advantages, {}, None, slots).sums.items()}
    return {name: x / sums["tokens"] for name, x in sums.items()}


def _output(
    sample: Sample, advantages: np.ndarray, leaf: dict[str, torch.Tensor], memory: Any, slots: dict[str, Any]
) -> LossOutput:
    method = objective(**slots)
    return method.loss(_inputs(method, sample, advantages, leaf, memory or {}))


def _inputs(
    method: Objective, sample: Sample, advantages: np.ndarray, leaf: dict[str, torch.Tensor], memory: Any
) -> LossInputs:
    batch = sample.batch
    at = torch.from_numpy(np.flatnonzero(batch.action_mask))  # masked ones have weight 0
    masked = (advantages * batch.loss_mask).astype(np.float32)
    columns = {k: v for each in method.spec.preparing for k, v in each.columns(batch, sample.scores, masked).items()}

    def pick(x: np.ndarray | torch.Tensor) -> torch.Tensor:
        x = torch.as_tensor(x)
        return (x if x.requires_grad else x.to(torch.float64))[at]

    return LossInputs(
        logprobs=pick(leaf.get("logprobs", sample.logprobs)),
        old_logprobs=pick(sample.old),
        behavior_logprobs=pick(sample.behavior),
        advantages=pick(advantages),
        weights=pick(method.token_weights(batch)),
        sequence_ids=torch.from_numpy(batch.token_trajectory)[at],
        turn_ids=torch.from_numpy(batch.turn_ids)[at],
        reference_logprobs=pick(sample.reference),
        entropies=pick(leaf.get("entropies", sample.entropies)),
        values=pick(leaf.get("values", sample.values)),
        old_values=pick(sample.old_values),
        returns=pick(sample.returns),
        columns={name: pick(column) for name, column in columns.items()},
        memory=memory,
    )
