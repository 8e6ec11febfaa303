"""The one door of this package: a candidate and a task in, a grade out."""

from __future__ import annotations

import asyncio

from ..limits import Limits
from ..protocol import Pool
from .cases import Pace
from .code import grade_code
from .functions import grade_function
from .result import Grade, no_verdict
from .stdio import grade_text
from .task import CodeTask, FunctionTask, Task


class Grader:
    """Grades candidates in a pool's sandboxes. One object for a run: it bounds how many tests that are code stand by
    at once (`testing`), since their processes wait without a place among the pool's runs.

    `limits`: for each case or call, the pool's own if None. `pace`: the default one.
    """

    def __init__(
        self, pool: Pool, *, limits: Limits | None = None, pace: Pace | None = None, testing: int = 16
    ) -> None:
        self._pool, self._limits = pool, limits or pool.limits
        self._pace = pace or Pace()
        self._testing = asyncio.Semaphore(testing)

    async def grade(self, code: str, task: Task, *, pace: Pace | None = None) -> Grade:
        """Never raises for anything that the candidate does; what the sandbox failed at is in the grade."""
        pace = pace or self._pace
        if isinstance(task, FunctionTask):
            return Grade(await grade_function(self._pool, code, task, self._limits, pace))
        if isinstance(task, CodeTask):
            return await self._grade_code(code, task, pace)
        return Grade(await grade_text(self._pool, code, task, self._limits, pace))

    async def _grade_code(self, code: str, task: CodeTask, pace: Pace) -> Grade:
        try:
            async with asyncio.timeout(pace.deadline_s), self._testing:
                return Grade(await grade_code(self._pool, code, task, self._limits, pace))
        except TimeoutError:
            return Grade(no_verdict(["tests"], f"the grade's deadline of {pace.deadline_s} s passed"))
