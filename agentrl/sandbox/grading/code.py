"""Grades by tests that are code. They run in one sandbox, each call of the candidate in another; between the two stands
this process and lets plain data through.

The candidate's sandbox holds the arguments of one call and nothing else of the tests. The tests' word about a case
counts only if each of its calls came to a value or an error: else the call's own status does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast, get_args

from ..dialogue import Silent
from ..limits import Limits
from ..protocol import Pool, PoolDialogue
from ..result import SandboxError
from .cases import Pace
from .functions import Answer, ask
from .result import CaseResult, CaseStatus, shorten, status_of
from .sent import tester
from .task import CodeTask


async def grade_code(pool: Pool, code: str, task: CodeTask, limits: Limits, pace: Pace) -> tuple[CaseResult, ...]:
    """`limits` are for each call of the candidate, and for what the tests do between calls."""
    order = {
        "setup": task.setup,
        "tests": task.tests,
        "checks": list(task.checks),
        "functions": list(task.functions),
        "module": task.module,
        "stop_early": pace.stop_early,
    }
    conversation = _Conversation(pool, code, task.functions, limits, pace)
    try:
        async with pool.dialogue(tester(json.dumps(order)), limits=limits) as talk:
            await conversation.hold(talk)
    except SandboxError as error:
        conversation.close("infra_error", str(error))
    return tuple(conversation.cases) or (CaseResult("tests", "broken_task", "there is no case in these tests"),)


class _Conversation:
    """With the sandbox of the tests, about one candidate. Leaves `cases`."""

    def __init__(self, pool: Pool, code: str, functions: Sequence[str], limits: Limits, pace: Pace) -> None:
        self.cases: list[CaseResult] = []
        self._pool, self._code, self._functions = pool, code, functions
        self._limits, self._pace = limits, pace
        self._spent = 0.0  # seconds of the candidate, in all cases
        self._name: str | None = None
        self._begin("tests")

    def _begin(self, name: str) -> None:
        self._name = name
        self._calls = 0
        self._wall_s = self._cpu_s = 0.0
        self._ended: tuple[CaseStatus, str] | None = None  # by a call that came to nothing

    async def hold(self, talk: PoolDialogue) -> None:
        while True:
            try:
                said = await talk.receive(self._limits.wall_s)
            except Silent:
                return self._lose("timeout", f"took over {self._limits.wall_s} s by themselves")
            if said is None:
                run = await talk.end()
                if run is None:
                    return self._lose("output_limit", "wanted to hand over more than can be")
                status = "broken_task" if run.status in ("ok", "error") else status_of(run)
                return self._lose(status, shorten(run.stderr) or run.error)
            if said.get("done"):
                return None
            if "case" in said:
                self._begin(str(said["case"]))
            elif "end" in said:
                self._end_case(*said["end"])
            else:
                await talk.send(await self._call(*said["call"]))

    async def _call(self, function: str, args: Any, kwargs: Any) -> dict[str, Any]:
        assert function in self._functions
        self._calls += 1
        most = self._pace.candidate_s
        if most is not None and self._spent >= most:
            self._ended = self._ended or ("timeout", f"its calls took {self._spent:.1f} s together")
            return {"ended": "timeout"}
        answer = await ask(self._pool, self._code, function, args, kwargs, self._limits)
        self._count(answer)
        if answer.kind in ("returned", "raised"):
            return {answer.kind: answer.said}
        self._ended = self._ended or (cast(CaseStatus, answer.kind), answer.said)
        return {"ended": answer.kind}

    def _count(self, answer: Answer) -> None:
        self._wall_s += answer.run.wall_s
        self._cpu_s += answer.run.cpu_s
        self._spent += answer.run.wall_s

    def _end_case(self, status: str, detail: str) -> None:
        assert status in get_args(CaseStatus)
        if self._name == "module" and status == "passed" and not self._calls:
            self._name = None  # nothing but definitions
            return
        if not self._calls:
            status, detail = "broken_task", f"{status} without a call of the candidate: {detail}"
        self.close(cast(CaseStatus, status), detail)

    def _lose(self, status: CaseStatus, detail: str) -> None:
        """The tests' own process is at its end. Before its first call the candidate has no part in that."""
        fault = self._calls or status == "infra_error"
        self.close(status if fault else "broken_task", f"the tests' own process: {detail}")

    def close(self, status: CaseStatus, detail: str) -> None:
        """Ends the case that is under way, or if there is none adds one that says what went wrong."""
        if self._ended and (status != "infra_error" or self._ended[0] == "infra_error"):
            status, detail = self._ended
        self.cases.append(CaseResult(self._name or "tests", status, detail, self._wall_s, self._cpu_s))
        self._begin("tests")
