"""Where a step's rollout went: waiting, tools.

What comes in: the groups of a step. What goes out: a flat mapping of numbers. Rewards, lengths and outcomes are the
objective's to report. Pure; knows no engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agentrl.trajectory import Group, ToolUse


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Waiting, and tools.

    Returns:
        time/engine_s, time/env_s: mean seconds a turn waited for the policy and for the environment, and their 95th
        percentiles _p95_s; time/queue_s, _p95_s: of the former, those before the engine began with it, where it tells;
        of each tool tool/<name>/calls, tool/<name>/errors (a share), time/tool/<name>_s and _p95_s.
    """
    turns = [turn for group in groups for t in group.played for turn in t.turns]
    out: dict[str, float] = {}
    for name in ("engine_s", "queue_s", "env_s"):
        told = (getattr(turn, name) for turn in turns)
        seconds = np.array([value for value in told if value is not None])
        if len(seconds):
            out |= _times(name.removesuffix("_s"), seconds)
    return out | _tools([use for turn in turns for use in turn.tools])


def _tools(uses: Sequence[ToolUse]) -> dict[str, float]:
    by_name: dict[str, list[ToolUse]] = defaultdict(list)
    for use in uses:
        by_name[use.name or "(no such tool)"].append(use)
    out: dict[str, float] = {}
    for name, of_tool in sorted(by_name.items()):
        out |= _times(f"tool/{name}", np.array([use.seconds for use in of_tool]))
        out[f"tool/{name}/calls"] = float(len(of_tool))
        out[f"tool/{name}/errors"] = float(np.mean([use.error is not None for use in of_tool]))
    return out


def _times(name: str, seconds: npt.NDArray[np.float64]) -> dict[str, float]:
    return {f"time/{name}_s": float(seconds.mean()), f"time/{name}_p95_s": float(np.quantile(seconds, 0.95))}
