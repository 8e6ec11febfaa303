"""The audit's tables: the presets, one choice at a time, branched rollouts, and samples of another policy.

What comes in: group sizes. What goes out: rows, table by table. Knows no page and no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentrl.objective.audit.audit import Auditor, Row
from agentrl.objective.audit.pieces import BLURRED, CORRECTIONS, TREES, pieces, specs
from agentrl.objective.audit.settings import blurred, branched
from agentrl.objective.loading import load_spec, preset_names
from agentrl.objective.spec import ObjectiveSpec

Progress = Callable[[str], None]  # told the name of each objective before it is audited
UNIT = "rloo"  # whose variance the others are measured by


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with the same settings, and the row whose variance is 1."""

    name: str
    settings: tuple[str, ...]
    rows: tuple[Row, ...]
    unit: Row

    def variances(self, row: Row) -> list[float]:
        """[settings] over the unit's, both at an equal gradient."""
        return [f.noise / u.noise for f, u in zip(row.findings, self.unit.findings, strict=True)]

    def variance(self, row: Row) -> float:
        """Their geometric mean."""
        return float(np.exp(np.mean(np.log(self.variances(row))))) if row.findings else float("nan")


def audit_table(
    name: str,
    auditor: Auditor,
    entries: Iterable[tuple[str, ObjectiveSpec]],
    progress: Progress,
    unit: Row | None = None,
) -> Table:
    """Audit every entry.

    Args:
        unit: whose variance is 1; None: that of the first entry
    """
    rows: list[Row] = []
    for label, spec in entries:
        progress(label)
        rows += auditor.audit(label, spec)
    return Table(name, tuple(s.name for s in auditor.settings), tuple(rows), unit or rows[0])


def specs_table(
    entries: Sequence[tuple[str, ObjectiveSpec]], sizes: Sequence[int], progress: Progress, *, off_policy: bool = False
) -> Table:
    """Objectives under these names."""
    return audit_table("presets", Auditor(sizes, off_policy), entries, progress, unit_row(sizes))


def pieces_table(sizes: Sequence[int], progress: Progress) -> Table:
    """One choice at a time in an unbiased method."""
    return audit_table("pieces", Auditor(sizes, find_causes=False), specs(pieces()), progress, unit_row(sizes))


def trees_table(progress: Progress) -> Table:
    """Groups whose trajectories share turns."""
    return audit_table("trees", Auditor(settings=branched(), find_causes=False), specs(TREES), progress)


def blurred_table(sizes: Sequence[int], progress: Progress) -> Table:
    """State ids that say too little."""
    auditor = Auditor(settings=blurred(sizes), find_causes=False)
    return audit_table("blurred", auditor, specs(BLURRED), progress)


def corrections_table(sizes: Sequence[int], progress: Progress) -> Table:
    """The unbiased method on samples of another policy, with each correction."""
    auditor = Auditor(sizes, off_policy=True, find_causes=False)
    return audit_table("off_policy", auditor, specs(CORRECTIONS), progress, unit_row(sizes))


def all_tables(sizes: Sequence[int], progress: Progress) -> list[Table]:
    """Everything that the page shows."""
    return [
        specs_table([(name, load_spec(name)) for name in preset_names()], sizes, progress),
        pieces_table(sizes, progress),
        trees_table(progress),
        blurred_table(sizes, progress),
        corrections_table(sizes, progress),
    ]


def unit_row(sizes: Sequence[int]) -> Row:
    """`rloo` on-policy."""
    return Auditor(sizes, find_causes=False).audit(UNIT, load_spec(UNIT))[0]


def as_plain(tables: Sequence[Table]) -> dict[str, object]:
    """Values for JSON: by table, its settings and one entry a row, with a list over settings for each number."""
    return {t.name: {"settings": list(t.settings), "rows": [_plain(t, row) for row in t.rows]} for t in tables}


def _plain(table: Table, row: Row) -> dict[str, object]:
    columns: Mapping[str, list[float]] = {
        "error": [f.error for f in row.findings],
        "residual": [f.residual for f in row.findings],
        "cosine": [f.cosine for f in row.findings],
        "scale": [f.scale for f in row.findings],
        "variance": table.variances(row) if row.findings else [],
    }
    numbers = {name: [_short(x) for x in values] for name, values in columns.items()}
    return {"name": row.name, "critic": row.critic, "verdict": row.verdict.value, "why": row.why, **numbers}


def _short(x: float) -> float | None:
    """Six digits; None for a number that there is none of, and 0 for what rounding leaves."""
    if not np.isfinite(x):
        return None
    return 0.0 if abs(x) < 1e-9 else float(f"{x:.6g}")
