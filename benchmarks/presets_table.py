"""The recorded runs of `presets.py` as a page: docs/presets.md.

What comes in: benchmarks/results/presets.jsonl, a line a run, and the catalogue of methods that are not built. What
goes out: Markdown. Trains nothing: `python benchmarks/presets_table.py` writes the page again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from agentrl.objective.catalogue import unbuilt_methods
from agentrl.objective.loading import load_spec, preset_names

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results/presets.jsonl"
PAGE = Path(__file__).parent.parent / "docs/presets.md"

HEAD = """# The presets, trained

Made by `make bench-presets`; do not edit. Every preset trains the quickstart's task, `scenarios/train/calculator.toml`
(a tiny model from nothing on two CPU cores), with its own defaults and the recipe's learning rate, from one warmed-up
policy a seed that solves almost nothing.

*Steps to 0.9*: RL steps until greedy play solves 0.9 of {tasks} held-out tasks, looked at every {every} steps, with
the episodes and sampled tokens up to there. *Sampled 0.8*: steps until 0.8 of a step's own episodes succeed, which are
sampled and of new tasks. A run ends when greedy play was at 0.9 twice running, after {least} steps or later, and after
{most} at the latest. *End*: greedy success there, with its 95 % Wilson interval, or over several seeds their mean,
lowest and highest. *Wall*: seconds of one thread of a shared machine.

The task is easy: it shows that a preset learns, and hardly which one learns better. Differences of a few steps between
single seeds say nothing. The recipe makes one update a batch, so ratios are 1 but for the engine's rounding: presets
that differ in anchor, ratio, gate or mismatch alone make the same run.
"""


def read_rows() -> list[Row]:
    """The recorded runs; the last one of a preset and seed counts."""
    if not RESULTS.exists():
        return []
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return list({(row["preset"], row["seed"]): row for row in rows}.values())


def write_table(not_trained: Mapping[str, str], **limits: int) -> None:
    """Write the page.

    Args:
        not_trained: presets without a run, and why.
        limits: tasks, every, least and most, as the runs had them.
    """
    runs: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows():
        runs[row["preset"]].append(row)
    known = preset_names()
    lines = [_line(name, sorted(runs[name], key=lambda row: row["seed"])) for name in known if name not in not_trained]
    page = [HEAD.format(**limits)]
    page += [
        "| preset | side | steps to 0.9 | episodes | tokens | sampled 0.8 | end | wall s | settings beside |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    page += lines
    page += [
        "",
        "Not trained: " + "; ".join(f"`{name}` ({why})" for name, why in not_trained.items() if name in known) + ".",
    ]
    page += ["", *_unbuilt()]
    PAGE.write_text("\n".join(page) + "\n", encoding="utf-8")


def _line(name: str, rows: Sequence[Row]) -> str:
    side = load_spec(name).side
    good = [row for row in rows if "error" not in row]
    if not good:
        return f"| `{name}` | {side} | {rows[0]['error'] if rows else 'no run yet'} | | | | | | |"
    ends = [row["final"]["mean"] for row in good]
    interval = good[0]["final"]
    end = f"{mean(ends):.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
    if len(good) > 1:
        end = f"{mean(ends):.3f} ({min(ends):.3f} to {max(ends):.3f}, {len(good)} seeds)"
    steps = ", ".join(
        "not in " + str(row["steps"]) if row["steps_to_goal"] is None else str(row["steps_to_goal"]) for row in good
    )
    episodes, tokens = (f"{mean(row[key] for row in good):.0f}" for key in ("episodes", "tokens"))
    wall = f"{mean(row['wall_s'] for row in good):.0f}"
    sampled = ", ".join(_first(row["sampled_curve"], 0.8) for row in good)
    beside = ", ".join(f"`{each.replace('{teacher}', '...')}`" for each in good[0].get("overrides", ()))
    return f"| `{name}` | {side} | {steps} | {episodes} | {tokens} | {sampled} | {end} | {wall} | {beside} |"


def _first(curve: Sequence[float], level: float) -> str:
    """The first step at this level."""
    return next((str(step) for step, value in enumerate(curve, 1) if value >= level), f"not in {len(curve)}")


def _unbuilt() -> list[str]:
    head = ["## Methods that are not built", "", "And what each would need beside the slots that there are.", ""]
    table = ["| method | side | source | needs |", "|---|---|---|---|"]
    return [*head, *table, *(f"| {m.title} | {m.side} | {m.source} | {m.needs} |" for m in unbuilt_methods())]


if __name__ == "__main__":
    from presets import LIMITS, NOT_TRAINED

    write_table(NOT_TRAINED, **LIMITS)
