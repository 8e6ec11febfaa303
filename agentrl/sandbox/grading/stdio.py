"""Grades a program by what it prints: one process a case, the whole output compared here."""

from __future__ import annotations

from ..limits import Limits
from ..protocol import Pool
from .cases import Pace, run_cases
from .result import CaseResult, shorten, status_of
from .task import TextTask, names_of


async def grade_text(
    pool: Pool, code: str, task: TextTask, limits: Limits | None, pace: Pace
) -> tuple[CaseResult, ...]:
    names = names_of(task.cases)

    async def judge(number: int) -> CaseResult:
        case, name = task.cases[number], names[number]
        run = await pool.run(code, stdin=case.stdin, limits=limits)
        used = run.wall_s, run.cpu_s
        if not run.ok:
            return CaseResult(name, status_of(run), shorten(run.stderr) or run.error, *used)
        if run.truncated:
            return CaseResult(name, "output_limit", "its output is not whole", *used)
        difference = task.output.difference(run.stdout, case.expected)
        return CaseResult(name, "wrong" if difference else "passed", difference, *used)

    return await run_cases(names, judge, pace)
