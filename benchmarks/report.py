"""What every benchmark prints: ours, the peer's, the ratio and the floor; and the same rows as JSON.

A ratio of two things measured in one run is a figure; an absolute time on a shared machine is not.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    name: str
    unit: str
    ours: float  # median
    p95: float
    peer: float | None = None
    peer_name: str = "not installed"
    floor: float | None = None  # what cannot be beaten, or the goal

    @property
    def ratio(self) -> float | None:
        """The peer's figure over ours: above 1 we need less."""
        return None if self.peer is None else self.peer / self.ours


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: done within a minute")
    return parser.parse_args()


def repeat(measure: Callable[[], float], times: int) -> tuple[float, float]:
    """Median and 95th percentile of several measurements, after one that does not count."""
    measure()
    return spread([measure() for _ in range(times)])


def spread(figures: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    ordered = sorted(figures)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]


def show(title: str, rows: Sequence[Row], target: Path | None) -> None:
    print(title)
    print(f"{'':34} {'unit':>10} {'ours':>10} {'p95':>10} {'peer':>10} {'ratio':>7} {'floor':>8}  peer's name")
    for row in rows:
        peer, ratio, floor = (_number(value) for value in (row.peer, row.ratio, row.floor))
        numbers = f"{row.ours:>10.3g} {row.p95:>10.3g} {peer:>10} {ratio:>7} {floor:>8}"
        print(f"{row.name:34} {row.unit:>10} {numbers}  {row.peer_name}")
    if target is not None:
        target.write_text(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=2) + "\n")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
