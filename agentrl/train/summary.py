"""The summary of a training run: what `summary.json` holds, and the lines a person reads at the end.

In: the numbers of a finished run. Out: text. Knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from agentrl.evaluate.statistics import IntervalDict

LABELS = {"warmup": "after warm-up", "end": "after RL"}


class RunSummary(TypedDict):
    """What `summary.json` holds."""

    name: str
    seed: int
    engine: str
    run: str  # the run folder
    success: Mapping[str, IntervalDict]  # of greedy play on held-out tasks: "warmup" (where there was one), "end"
    tool_share: Mapping[str, float]  # share of the same episodes that called a tool; the same keys
    wall_s: Mapping[str, float]  # seconds by stage
    failures: Mapping[str, int]  # failed episodes by outcome
    unsaved_steps: int  # steps whose trajectories could not be written


def summary_lines(summary: RunSummary) -> list[str]:
    """The end of a run as lines: a table of success, where the time went, and what to do next."""
    header = ("", "success", "95 % interval", "tasks", "calls a tool")
    rows = [_success_row(summary, stage) for stage in summary["success"]]
    wall_s, failures, run = summary["wall_s"], summary["failures"], summary["run"]
    unsaved = summary["unsaved_steps"]
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in wall_s.items())
    return [
        "",
        f"{summary['name']}, seed {summary['seed']}, engine {summary['engine']}: success on tasks never trained on",
        *aligned([header, *rows]),
        "",
        f"time: {stages}; {sum(wall_s.values()):.1f} s in all",
        "failed episodes: " + (", ".join(f"{n} {outcome}" for outcome, n in failures.items()) or "none"),
        *([f"steps whose trajectories could not be written: {unsaved}"] if unsaved else []),
        f"run folder: {run}",
        f"next: agentrl eval SUITE --policy {run}   (agentrl list suites shows the suites)",
    ]


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Lay rows of equal length out in columns, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _success_row(summary: RunSummary, stage: str) -> tuple[str, ...]:
    success = summary["success"][stage]
    share = summary["tool_share"].get(stage)
    return (
        LABELS.get(stage, stage),
        _number(success["mean"]),
        f"[{_number(success['low'])}, {_number(success['high'])}]",
        str(success["n"]),
        "-" if share is None else f"{share:.0%}",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
