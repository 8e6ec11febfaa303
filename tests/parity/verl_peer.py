"""verl's side of a comparison: its own functions, called with padded rows in float64.

What comes in: a random batch and the function's settings. What goes out: what it computes, brought back to flat arrays.
Importing this skips the tests that do so where verl is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.batches import Sample
from tests.parity.ours import Loss

WHY_NOT = "verl 0.9.1 is not installed here; `make parity-setup` makes .venv-parity, which has it"

core = pytest.importorskip("verl.trainer.ppo.core_algos", reason=WHY_NOT)
corrections = pytest.importorskip("verl.trainer.ppo.rollout_corr_helper", reason=WHY_NOT)
configs = pytest.importorskip("verl.workers.config", reason=WHY_NOT)


class Algorithm(dict):
    """Settings of an estimator: verl reads them as attributes here and as keys there."""

    __getattr__ = dict.__getitem__


def estimate(name: str, sample: Sample, rewards: torch.Tensor | None = None, **inputs: Any) -> np.ndarray:
    """[N] advantages at action tokens.

    Args:
        name: as verl's configuration names the estimator
        rewards: [B, L]; the episodes' own where absent
    """
    rewards = sample.token_rewards if rewards is None else rewards
    estimator = core.get_adv_estimator_fn(name)
    rows = sample.rows
    if name != "gae":
        inputs = {"index": rows.groups, **inputs}
    advantages, _ = estimator(token_level_rewards=rewards.clone(), response_mask=rows.mask, **inputs)
    return rows.back(advantages, rows.mask)


def policy_loss(
    name: str,
    sample: Sample,
    advantages: np.ndarray | None = None,
    *,
    aggregate: str = "token-mean",
    weights: torch.Tensor | None = None,
    old: np.ndarray | None = None,
    mask: torch.Tensor | None = None,
    loss: dict[str, Any] | None = None,
    **settings: Any,
) -> Loss:
    """A policy loss and its gradient.

    Args:
        advantages: [N]; the sample's own where absent
        weights: [B, L] of the rollout correction
        old: [N] log-probs it takes for old
        mask: [B, L] in place of the sample's loss mask
        loss: settings of `policy_loss`
        settings: of the actor
    """
    rows = sample.rows
    leaf = torch.tensor(sample.logprobs, requires_grad=True)
    value, _ = core.get_policy_loss_fn(name)(
        old_log_prob=rows.of(sample.old if old is None else old),
        log_prob=rows.of(leaf),
        advantages=rows.of(sample.advantages if advantages is None else advantages),
        response_mask=rows.mask if mask is None else mask,
        loss_agg_mode=aggregate,
        config=actor(loss, **settings),
        rollout_is_weights=weights,
    )
    return with_gradient(value, leaf)


def actor(loss: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The configuration that a policy loss reads."""
    return configs.ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=configs.PolicyLossConfig(**loss or {}),
        **settings,
    )


def aggregate(sample: Sample, per_token: Callable[[torch.Tensor], torch.Tensor], mode: str, **settings: Any) -> Loss:
    """verl's aggregation of a loss made from log-probs at rows [B, L]."""
    leaf = torch.tensor(sample.logprobs, requires_grad=True)
    value = core.agg_loss(per_token(sample.rows.of(leaf)), sample.rows.mask, mode, **settings)
    return with_gradient(value, leaf)


def with_gradient(value: torch.Tensor, leaf: torch.Tensor) -> Loss:
    (gradient,) = torch.autograd.grad(value, leaf)
    return Loss(value.item(), gradient.numpy())
