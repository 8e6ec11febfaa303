"""Imitation: before RL, the policy learns to say what the environment's demonstrator says.

What comes in: a collector whose engine plays the demonstrator, and a learner. What goes out: metrics of each step;
the learner's model has changed. The loss is -log pi averaged over action tokens: the policy gradient with advantage
1.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from agentrl.learner.learner import Learner
from agentrl.objective.batch import Credited, Scores
from agentrl.rollout.collector import Collector
from agentrl.train.metrics import env_metrics


async def imitate(collector: Collector, learner: Learner, steps: int) -> AsyncIterator[dict[str, float]]:
    """Imitate for `steps` updates, yielding each one's metrics."""
    for step in range(steps):
        groups = await collector.collect(step)
        batch = learner.objective.select(groups)
        advantages = batch.loss_mask.astype(np.float64)
        credited = Credited(batch, Scores(None, None, None), advantages, {})
        result = learner.update(credited, step=step)
        played = {**batch.metrics, **env_metrics(groups)}
        yield {
            **{name: result[name] for name in ("loss", "entropy", "grad_norm", "lr", "padding_share", "update_s")},
            **{f"demo/{name}": played[name] for name in ("success", "tokens", "tool_share") if name in played},
        }
