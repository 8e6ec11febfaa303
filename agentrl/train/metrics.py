"""What environments and parsers counted in a step's episodes.

What comes in: groups. What goes out: a flat mapping of means and shares; rewards, lengths and outcomes are the
objective's to report. Failed trajectories stand in no mean. Pure; knows no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from agentrl.evaluate.result import called_tool
from agentrl.trajectory import Group, Trajectory

_COUNTED_BY_EPISODES = ("calls", "unreadable_calls")


def env_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the trajectories that have a reward.

    Returns:
        env/<name> for every metric of the environment, and tool_share: the share of episodes that called a tool, where
        the environment counts `tool_calls`. calls and unreadable_calls are the episodes' own counts of what the parser
        found: means an episode. rendered_<how>: the share of turns whose prompt came about so (`render/chat.py`), where
        not all are exact.
    """
    valid = [t for group in groups for t in group.valid]
    names = sorted({name for t in valid for name in t.metrics} - {"turns"})
    out = {
        name if name in _COUNTED_BY_EPISODES else f"env/{name}": float(
            np.mean([t.metrics.get(name, 0.0) for t in valid])
        )
        for name in names
    }
    if "tool_calls" in names:
        out["tool_share"] = float(np.mean([called_tool(t) for t in valid]))
    return out | _rendered(valid)


def _rendered(valid: Sequence[Trajectory]) -> dict[str, float]:
    counts = Counter(turn.rendered for t in valid for turn in t.turns)
    if set(counts) <= {"exact"}:
        return {}
    return {f"rendered_{how}": count / counts.total() for how, count in sorted(counts.items())}
