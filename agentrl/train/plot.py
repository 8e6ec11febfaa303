"""The learning curve of a run as a picture.

What comes in: a run folder. What goes out: a PNG: held-out success with its interval, training success, and the share
of episodes that called a tool, over the warm-up's and RL's steps. Knows no model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentrl.errors import DataError, MissingDependencyError


def plot_run(folder: Path, picture: Path) -> Path:
    """Draw a run's learning curve.

    Raises:
        DataError: the folder holds no `metrics.jsonl` with RL steps.
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("a plot needs matplotlib: pip install 'agentrl[plot]'") from error
    entries = read_metrics(folder)
    rl = [e for e in entries if e["stage"] == "rl"]
    if not rl:
        raise DataError(f"{folder} has recorded no RL step yet: there is no curve to draw")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    steps = [e["step"] for e in rl]
    axes.plot(steps, [e.get("success", 0.0) for e in rl], color="tab:blue", lw=1, alpha=0.7, label="success, sampled")
    if "tool_share" in rl[0]:
        axes.plot(steps, [e.get("tool_share", 0.0) for e in rl], color="tab:orange", lw=1.5, label="calls a tool")
    held_out = [e for e in entries if e["stage"] == "evaluation" and e["success"] is not None]
    means = [e["success"] for e in held_out]
    below = [e["success"] - e["low"] for e in held_out]
    above = [e["high"] - e["success"] for e in held_out]
    label = "success on held-out tasks, greedy (95 %)"
    points = [e["step"] for e in held_out]
    axes.errorbar(points, means, [below, above], fmt="o-", color="black", capsize=3, lw=1.5, label=label)
    axes.set(xlabel="RL step (0: after warm-up)", ylabel="share of episodes", ylim=(-0.02, 1.02), title=_title(folder))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(picture, dpi=120)
    return picture


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`.

    Raises:
        DataError: there is no such file, or a line of it is broken (its number is named).
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise DataError(f"{folder} is no run folder: it has no metrics.jsonl")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            _ = entry["stage"], entry["step"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}, line {number}: no record of a step ({error}); delete the line") from error
        entries.append(entry)
    return entries


def _title(folder: Path) -> str:
    summary = folder / "summary.json"
    if not summary.is_file():
        return folder.name
    facts = json.loads(summary.read_text(encoding="utf-8"))
    return f"{facts['name']}, seed {facts['seed']}, engine {facts['engine']}"
