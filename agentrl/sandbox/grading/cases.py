"""Runs the cases of a grade: some at once, in order, until all are judged, one has failed or the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from .result import CaseResult, no_verdict


@dataclass(frozen=True, slots=True)
class Pace:
    """How a grade is run. Times in seconds.

    `parallel`: cases at once. `stop_early`: no case counts after the first, in order, that did not pass.
    `candidate_s`: what all processes of the candidate may take together, None for no bound; cases beyond it are
    timeouts, since the candidate took the time. `deadline_s`: real time for the whole grade, waiting for the pool
    included; past it the grade fails, since the machine took the time.
    """

    parallel: int = 4
    stop_early: bool = False
    candidate_s: float | None = None
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise ValueError(f"parallel is {self.parallel!r}: give at least 1")


async def run_cases(
    names: Sequence[str], judge: Callable[[int], Awaitable[CaseResult]], pace: Pace
) -> tuple[CaseResult, ...]:
    """`judge(n)` runs case n and never raises for anything that a candidate does."""
    round_ = _Round(names, judge, pace)
    rest = [CaseResult(name, "skipped") for name in names]
    try:
        async with asyncio.timeout(pace.deadline_s), asyncio.TaskGroup() as group:
            for _ in range(min(pace.parallel, len(names))):
                group.create_task(round_.work(group))
    except* TimeoutError:
        rest = list(no_verdict(names, f"the grade's deadline of {pace.deadline_s} s passed"))
    return tuple(
        round_.found.get(n, rest[n]) if n <= round_.last else CaseResult(name, "skipped")
        for n, name in enumerate(names)
    )


class _Round:
    """The cases of one grade. Leaves `found`, and in `last` the first case, in order, after which none is wanted.

    A case that failed stops only those after it: which one is the first does not depend on which ends first.
    """

    def __init__(self, names: Sequence[str], judge: Callable[[int], Awaitable[CaseResult]], pace: Pace) -> None:
        self.found: dict[int, CaseResult] = {}
        self.last = len(names)
        self._names, self._judge, self._pace = names, judge, pace
        self._waiting = iter(range(len(names)))
        self._at_work: dict[int, asyncio.Task[CaseResult]] = {}
        self._spent = 0.0

    async def work(self, group: asyncio.TaskGroup) -> None:
        for number in self._waiting:
            if number > self.last:
                return
            most = self._pace.candidate_s
            if most is not None and self._spent >= most:
                self._end(
                    number, CaseResult(self._names[number], "timeout", f"the cases before it took {self._spent:.1f} s")
                )
                continue
            task = self._at_work[number] = group.create_task(self._one(number))
            await asyncio.wait({task})
            del self._at_work[number]
            if not task.cancelled() and not task.exception():
                self._end(number, task.result())

    async def _one(self, number: int) -> CaseResult:
        return await self._judge(number)

    def _end(self, number: int, result: CaseResult) -> None:
        self.found[number] = result
        self._spent += result.wall_s
        if self._pace.stop_early and result.status != "passed" and number < self.last:
            self.last = number
            for later, task in self._at_work.items():
                if later > number:
                    task.cancel()
