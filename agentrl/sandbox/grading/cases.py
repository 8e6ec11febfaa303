"""Runs the cases of a grade: some at once, in order, until all are judged, one has failed or the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from .result import CaseResult, no_verdict


@dataclass(frozen=True, slots=True)
class Pace:
    """How a grade is run. Times in seconds.

    `parallel`: cases at once. `stop_early`: no further case after one that did not pass. `candidate_s`: what all
    processes of the candidate may take together, None for no bound; cases beyond it are timeouts, since the candidate
    took the time. `deadline_s`: real time for the whole grade, waiting for the pool included; past it the grade fails,
    since the machine took the time.
    """

    parallel: int = 4
    stop_early: bool = False
    candidate_s: float | None = None
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise ValueError(f"parallel is {self.parallel!r}: give at least 1")


class _Enough(Exception):
    """A case failed and no other is wanted."""


async def run_cases(
    names: Sequence[str], judge: Callable[[int], Awaitable[CaseResult]], pace: Pace
) -> tuple[CaseResult, ...]:
    """`judge(n)` runs case n and never raises for anything that a candidate does."""
    found: dict[int, CaseResult] = {}
    waiting = iter(range(len(names)))
    spent = 0.0

    async def work() -> None:
        nonlocal spent
        for number in waiting:
            if pace.candidate_s is not None and spent >= pace.candidate_s:
                found[number] = CaseResult(names[number], "timeout", f"the cases before it took {spent:.1f} s")
            else:
                found[number] = await judge(number)
            spent += found[number].wall_s
            if pace.stop_early and found[number].status != "passed":
                raise _Enough

    rest = "skipped"
    try:
        async with asyncio.timeout(pace.deadline_s), asyncio.TaskGroup() as group:
            for _ in range(min(pace.parallel, len(names))):
                group.create_task(work())
    except* _Enough:
        pass
    except* TimeoutError:
        rest = "late"
    late = no_verdict(names, f"the grade's deadline of {pace.deadline_s} s passed")
    skipped = [late[n] if rest == "late" else CaseResult(name, "skipped") for n, name in enumerate(names)]
    return tuple(found.get(number, skipped[number]) for number in range(len(names)))
