"""Audited tables as text: rows of cells for a terminal, Markdown for a page.

What comes in: the plain values of `tables.as_plain`, fresh or recorded. What goes out: text. Loads no torch and knows
no audit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

PlainRow = Mapping[str, Any]
PlainTable = Mapping[str, Any]
BRIEF = ("name", "verdict", "error", "cosine", "variance", "why")
_RECORD = "recorded.json"


@cache
def recorded() -> Mapping[str, PlainTable]:
    """The tables as they were last written down."""
    text = resources.files("agentrl.objective.audit").joinpath(_RECORD).read_text(encoding="utf-8")
    tables: Mapping[str, PlainTable] = json.loads(text)
    return tables


def recorded_rows(preset: str) -> list[PlainRow]:
    """What the record says about a preset: one row, two where it has a critic, none where it was never audited."""
    return [row for row in recorded()["presets"]["rows"] if row["name"] == preset]


def label(row: PlainRow) -> str:
    """The row's name, and whose values were read."""
    return f"{row['name']}, {row['critic']} critic" if row["critic"] else str(row["name"])


def brief(row: PlainRow) -> tuple[str, ...]:
    """Cells under `BRIEF`: the worst error and cosine of all settings, the mean of the variances."""
    if not row["residual"]:
        return (label(row), row["verdict"], "-", "-", "-", row["why"])
    error, cosine = max(row["residual"]), min(row["cosine"])
    return (label(row), row["verdict"], percent(error), f"{cosine:.3f}", _times(_mean(row["variance"])), row["why"])


def markdown(table: PlainTable, *, columns: Sequence[str] = ("verdict", "error", "variance", "why")) -> str:
    """A table with the error and the variance of every setting, in the order of `settings`."""
    return "\n".join(
        [
            "| | " + " | ".join(columns) + " |",
            "|---" * (len(columns) + 1) + "|",
            *(_line(row, columns) for row in table["rows"]),
        ]
    )


def percent(x: float) -> str:
    """0 for no error at all, else two digits."""
    return "0" if x == 0 else f"{100 * x:.2g}%" if x < 0.995 else f"{100 * x:.0f}%"


def _line(row: PlainRow, columns: Sequence[str]) -> str:
    verdict = row["verdict"] if row["verdict"] in ("biased", "another objective") else f"**{row['verdict']}**"
    cells = {
        "verdict": verdict,
        "error": " ".join(map(percent, row["residual"])),
        "cosine": f"{min(row['cosine']):.3f}" if row["cosine"] else "",
        "variance": " ".join(map(_times, row["variance"])),
        "why": row["why"],
    }
    return "| " + " | ".join([label(row), *(cells[c] for c in columns)]) + " |"


def _times(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}" if x < 99.5 else f"{x:.0f}"


def _mean(values: Sequence[float | None]) -> float | None:
    """Geometric; None where one of them is not finite."""
    product = 1.0
    for value in values:
        if value is None:
            return None
        product *= value
    return float(product ** (1 / len(values)))
