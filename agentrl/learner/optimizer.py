"""AdamW with warm-up and a schedule.

What comes in: parameters and settings. What goes out: an optimiser and its schedule, one step an update.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.optim.lr_scheduler import LambdaLR

from agentrl.learner.settings import OptimizerSettings


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter],
    settings: OptimizerSettings,
    *,
    total_updates: int,
    value_head: Iterable[torch.nn.Parameter] = (),
    value_lr: float = 0.0,
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """AdamW; weight decay on matrices alone. `total_updates` is where the schedule ends.

    Args:
        value_head: parameters that learn at `value_lr`, by the same schedule.
    """
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        {"params": list(value_head), "weight_decay": 0.0, "lr": value_lr},
    ]
    optimizer = torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True
    )
    return optimizer, LambdaLR(optimizer, lambda update: lr_factor(update, settings, total_updates))


def lr_factor(update: int, settings: OptimizerSettings, total_updates: int) -> float:
    """Share of the full learning rate at an update, counted from 0.

    Rises linearly over `warmup_steps`, never 0; then is 1 (constant) or falls to 0 at `total_updates` (linear, cosine).
    """
    if update < settings.warmup_steps:
        return (update + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return 1.0
    left = max(1, total_updates - settings.warmup_steps)
    done = min(1.0, (update - settings.warmup_steps) / left)
    return 1.0 - done if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
