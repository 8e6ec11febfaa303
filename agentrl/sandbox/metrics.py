"""What a pool has done: how runs ended, what ended them, and how long each phase took. Of bounded size.

In: ends and times as they happen. Out: `Metrics`, plain values. Times go into a histogram whose steps are a tenth
apart: a percentile is the upper edge of its step, at most a tenth too much.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

PHASES = ("queue", "start", "run", "collect")

_SHORTEST_S = 1e-5
_STEP = 1.1
_STEPS = 200  # up to half an hour


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds."""

    count: int
    mean_s: float
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Since the pool was opened, but for what is now.

    `runs`: programs, commands and calls by status. `cells`: of sessions, by status; a command of a shell is one.
    `kills`: what was ended, by reason: `wall`, `cpu`, `memory`, `disk`, `output`, and `session` for one that answered
    nonsense or could not be interrupted. `latency`, by phase: `queue` until there was a place, `start` until the walls
    stood, `run` from then to the end, `collect` for taking what came of it. `running`, `cells_running`,
    `sessions`, `waiting`, `starting`: now. `memory_bytes`, `processes`: the sums of the limits of all that lives now.
    """

    runs: Mapping[str, int]
    cells: Mapping[str, int]
    kills: Mapping[str, int]
    latency: Mapping[str, Latency]
    running: int
    cells_running: int
    sessions: int
    waiting: int
    starting: int
    memory_bytes: int
    processes: int


class Histogram:
    """Times, in steps that grow by a tenth."""

    def __init__(self) -> None:
        self._counts = [0] * (_STEPS + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._sum_s += seconds
        step = math.ceil(math.log(seconds / _SHORTEST_S, _STEP)) if seconds > _SHORTEST_S else 0
        self._counts[min(step, _STEPS)] += 1

    def at(self, part: float) -> float:
        """The time that so large a part of all did not exceed; 0 if there is none."""
        wanted, seen = math.ceil(part * sum(self._counts)), 0
        for step, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return _SHORTEST_S * _STEP**step
        return 0.0

    def summary(self) -> Latency:
        count = sum(self._counts)
        return Latency(count, self._sum_s / count if count else 0.0, self.at(0.5), self.at(0.99))


class Meter:
    """Counts."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.cells: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        self.cells_running = 0
        self.phases = {phase: Histogram() for phase in PHASES}

    def run(self, status: str) -> None:
        self.runs[status] += 1

    def cell(self, status: str) -> None:
        self.cells[status] += 1

    def kill(self, reason: str) -> None:
        self.kills[reason] += 1

    def took(self, phase: str, seconds: float) -> None:
        self.phases[phase].add(seconds)
