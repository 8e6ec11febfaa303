"""Grades a function: one process a call, arguments in, value out, compared here.

Expected values stay in this process.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Literal

from ..limits import Limits
from ..protocol import Pool
from ..result import RunResult
from .cases import Pace, run_cases
from .inside.values import encode
from .result import CaseResult, CaseStatus, shorten, status_of
from .sent import caller
from .task import FunctionCase, FunctionTask, Raises, built_in_error, names_of

_AT_ONCE = 20_000  # characters of a value, encoded, that are compared without leaving the event loop


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call came to. `said`: the encoded value if `returned`, [built-in exception, text] if `raised`, else a
    sentence."""

    kind: Literal["returned", "raised"] | CaseStatus
    said: Any
    run: RunResult


async def grade_function(
    pool: Pool, code: str, task: FunctionTask, limits: Limits | None, pace: Pace
) -> tuple[CaseResult, ...]:
    names = names_of(task.cases)

    async def judge(number: int) -> CaseResult:
        case = task.cases[number]
        answer = await ask(pool, code, task.function, encode(list(case.args)), encode(dict(case.kwargs)), limits)
        if len(json.dumps(answer.said)) < _AT_ONCE:
            status, detail = _judge(answer, case, task)
        else:  # a large value may take a while, and the event loop has other things to do
            status, detail = await asyncio.to_thread(_judge, answer, case, task)
        return CaseResult(names[number], status, detail, answer.run.wall_s, answer.run.cpu_s)

    return await run_cases(names, judge, pace)


async def ask(pool: Pool, code: str, function: str, args: Any, kwargs: Any, limits: Limits | None) -> Answer:
    """Loads the candidate anew and calls its function; the arguments encoded."""
    result = await pool.call(caller(), "answer", [code, function, args, kwargs], limits=limits)
    run, said = result.run, result.value
    if not result.ok:
        return Answer(status_of(run), shorten(run.stderr) or run.error, run)
    if isinstance(said, dict) and len(said) == 1:
        if "returned" in said:
            return Answer("returned", said["returned"], run)
        raised = said.get("raised")
        if isinstance(raised, list) and len(raised) == 2 and all(isinstance(each, str) for each in raised):
            return Answer("raised", raised, run)
    return Answer("error", "its answer has not the form agreed on", run)


def _judge(answer: Answer, case: FunctionCase, task: FunctionTask) -> tuple[CaseStatus, str]:
    wanted, said = case.expected, answer.said
    if answer.kind == "raised":
        kind = built_in_error(said[0])
        if isinstance(wanted, Raises) and kind and issubclass(kind, built_in_error(wanted.name) or ()):
            return "passed", ""
        return "error", shorten(answer.run.stderr) or said[1]
    if answer.kind != "returned":
        return answer.kind, said
    if isinstance(wanted, Raises):
        return "wrong", f"returned {_show(said)}, not raised {wanted.name}"
    try:
        same = json.dumps(said) == json.dumps(encode(wanted)) or task.equality.same(said, encode(wanted))
    except (ValueError, TypeError, RecursionError) as error:
        return "error", f"its value cannot be read: {error}"
    return ("passed", "") if same else ("wrong", f"returned {_show(said)}, not {_show(encode(wanted))}")


def _show(said: Any) -> str:
    text = json.dumps(said)
    return text if len(text) <= 200 else text[:200] + "..."
