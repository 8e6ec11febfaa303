"""Numbers about a step's rollouts.

What comes in: groups. What goes out: a flat mapping of means and shares. Failed trajectories are counted and stand in
no mean. Pure; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentrl.evaluate.result import called_tool
from agentrl.trajectory import Group, succeeded


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the trajectories that have a reward.

    Returns:
        reward, reward_std, success (share whose outcome parts sum to 1), truncated and failed (shares), turns,
        tokens and action_tokens (of an episode), sampled_tokens (of all), tool_share (share that called a tool, where
        the environment counts `tool_calls`), and env/<name> for every metric of the environment.
    """
    members = [t for group in groups for t in group.trajectories]
    valid = [t for t in members if t.reward is not None]
    out = {
        "episodes": float(len(members)),
        "failed": 1.0 - len(valid) / len(members) if members else 0.0,
        "sampled_tokens": float(sum(t.n_action_tokens for t in members)),
    }
    if not valid:
        return out
    rewards = np.array([t.reward for t in valid], np.float64)
    out |= {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "success": float(np.mean([succeeded(t) for t in valid])),
        "truncated": float(np.mean([t.outcome.truncated for t in valid])),
        "turns": float(np.mean([len(t.turns) for t in valid])),
        "tokens": float(np.mean([t.n_tokens for t in valid])),
        "action_tokens": float(np.mean([t.n_action_tokens for t in valid])),
    }
    names = sorted({name for t in valid for name in t.metrics} - {"turns"})
    for name in names:
        out[f"env/{name}"] = float(np.mean([t.metrics.get(name, 0.0) for t in valid]))
    if "tool_calls" in names:
        out["tool_share"] = float(np.mean([called_tool(t) for t in valid]))
    return out
