"""What grades come to: statuses, partial credit, stopping early, deadlines, and failures that are no scores."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from agentrl.sandbox import Limits, SandboxPool
from agentrl.sandbox.grading import (
    CaseResult,
    FunctionCase,
    FunctionTask,
    Grade,
    Grader,
    Pace,
    Raises,
    TextCase,
    TextTask,
)  # fmt: skip
from tests.sandbox.conftest import begun
from tests.sandbox.serving import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BY_CASE = """
def solve(n):
    if n == "raise": return [][0]
    if n == "exit": raise SystemExit
    if n == "code": raise SystemExit(3)
    if n == "loop":
        while True: pass
    if n == "memory": return len(bytearray(10**10))
    if n == "flood": print("x" * (3 << 20))
    if n == "abort":
        import os
        os.abort()
    if n == "object": return object()
    return n
"""
STATUSES = {
    "right": "passed", "wrong": "wrong", "raise": "error", "exit": "error", "code": "error", "loop": "timeout",
    "memory": "memory", "flood": "output_limit", "abort": "signal", "object": "error",
}  # fmt: skip


def expecting(*pairs: tuple[object, object]) -> FunctionTask:
    return FunctionTask("solve", [FunctionCase((given,), wanted) for given, wanted in pairs])


async def test_every_case_has_its_own_status_and_the_share_is_of_those_that_passed(grader: Grader) -> None:
    wanted = {"wrong": "another"}
    grade = await grader.grade(BY_CASE, expecting(*((each, wanted.get(each, each)) for each in STATUSES)))
    assert [case.status for case in grade.cases] == list(STATUSES.values())
    assert [case.name for case in grade.cases] == [f"case {n}" for n in range(len(STATUSES))]
    assert grade.share == pytest.approx(1 / len(STATUSES))
    assert grade.passed is False
    assert not grade.failed
    assert "returned" in grade.why
    by_name = dict(zip(STATUSES, grade.cases, strict=True))
    assert "IndexError" in by_name["raise"].detail
    assert "object" in by_name["object"].detail
    assert by_name["loop"].cpu_s > 0.5


async def test_a_grade_with_a_case_that_has_no_verdict_is_no_score() -> None:
    good, bad = CaseResult("a", "passed"), CaseResult("b", "wrong", "1 is not 2")
    for without in (CaseResult("c", "infra_error", "gone"), CaseResult("c", "broken_task", "SyntaxError")):
        grade = Grade((good, bad, without))
        assert grade.failed
        assert grade.passed is None
        assert grade.share is None
        assert grade.why.startswith("c: ")
    assert Grade(()).failed
    assert Grade((good, bad)).share == 0.5
    assert Grade((good,)).passed is True
    assert Grade((good,)).why == ""


async def test_stopping_early_leaves_the_rest_out(grader: Grader) -> None:
    task = expecting(*((n, n) for n in range(3)), ("wrong", ""), *((n, n) for n in range(30)))
    grade = await grader.grade(BY_CASE, task, pace=Pace(parallel=2, stop_early=True))
    statuses = [case.status for case in grade.cases]
    assert statuses == ["passed"] * 3 + ["wrong"] + ["skipped"] * 30
    assert grade.passed is False
    assert grade.share == 3 / 34


async def test_right_candidate_is_not_stopped_early(grader: Grader) -> None:
    grade = await grader.grade(BY_CASE, expecting(*((n, n) for n in range(5))), pace=Pace(stop_early=True))
    assert grade.passed is True


async def test_the_deadline_makes_it_a_failure_since_the_machine_took_the_time(grader: Grader) -> None:
    sleeper = "import time\ndef solve(n):\n    time.sleep(n)\n    return n"
    grade = await grader.grade(sleeper, expecting((0, 0), (60, 60), (60, 60)), pace=Pace(deadline_s=3.0))
    assert [case.status for case in grade.cases] == ["passed", "infra_error", "infra_error"]
    assert grade.share is None
    assert "deadline" in grade.why


async def test_the_candidates_own_time_is_a_timeout(grader: Grader) -> None:
    sleeper = "import time\ndef solve(n):\n    time.sleep(1)\n    return n"
    grade = await grader.grade(sleeper, expecting(*((n, n) for n in range(8))), pace=Pace(parallel=1, candidate_s=2.5))
    statuses = [case.status for case in grade.cases]
    assert statuses[0] == "passed"
    assert statuses[3:] == ["timeout"] * 5
    assert not grade.failed


async def test_no_more_cases_at_once_than_asked_for(grader: Grader) -> None:
    sleeper = "import time\ndef solve(n):\n    time.sleep(0.2)\n    return n"
    task = expecting(*((n, n) for n in range(4)))
    times: dict[int, float] = {}
    for _ in range(5):  # a busy machine may take the time that is won
        for parallel in (1, 4):
            began = time.monotonic()
            assert (await grader.grade(sleeper, task, pace=Pace(parallel=parallel))).passed
            times[parallel] = time.monotonic() - began
        assert times[1] >= 0.8
        if times[4] < times[1] - 0.3:
            break
    assert times[4] < times[1] - 0.3
    with pytest.raises(ValueError, match="parallel"):
        Pace(parallel=0)


async def test_expected_exceptions(grader: Grader) -> None:
    task = expecting(("raise", Raises("IndexError")), ("raise", Raises("LookupError")), ("raise", Raises("ValueError")))
    grade = await grader.grade(BY_CASE, task)
    assert [case.status for case in grade.cases] == ["passed", "passed", "error"]
    returned = await grader.grade(BY_CASE, expecting((1, Raises("IndexError"))))
    assert returned.cases[0].status == "wrong"
    own = "class Mine(ValueError): pass\ndef solve(n): raise Mine(n)"
    assert (await grader.grade(own, expecting((1, Raises("ValueError"))))).passed is True


@pytest.mark.parametrize("code", ["raise IndexError", "import sys\nsys.exit(0)", "def solve(n):\n    raise SystemExit"])
async def test_leaving_is_not_the_exception_that_was_wanted(grader: Grader, code: str) -> None:
    assert (await grader.grade(code, expecting((1, Raises("IndexError"))))).passed is False


async def test_arguments_keep_their_types_and_methods_can_be_called(grader: Grader) -> None:
    code = "class Solution:\n    def kind(self, x, *, more): return [type(x).__name__, type(more).__name__]"
    values = [(1,), {1}, {1: 2}, b"", True, 2.0, frozenset({2}), [1], None, 2j]
    more = {"more": frozenset({1})}
    cases = [FunctionCase((value,), [type(value).__name__, "frozenset"], more) for value in values]
    assert (await grader.grade(code, FunctionTask("Solution.kind", cases))).passed is True


async def test_candidate_may_be_a_module_of_some_size(grader: Grader) -> None:
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass, field\nfrom typing import NamedTuple\n"
        "@dataclass\nclass Box:\n    x: int\n    more: list[int] = field(default_factory=list)\n"
        "class Pair(NamedTuple):\n    a: int\n    b: int\n"
        "def solve(n):\n    print('noise')\n    return Pair(Box(n).x, n)\n"
        "if __name__ == '__main__':\n    raise ValueError\n"
    )
    assert (await grader.grade(code, expecting((3, (3, 3))))).passed is True


@pytest.mark.parametrize(
    "code", ["", "def solve(n: return n", "solve = 3", "def other(n): return n", "\0", "import nowhere", "\ud800"]
)
async def test_no_candidate_at_all(grader: Grader, code: str) -> None:
    grade = await grader.grade(code, expecting((3, 3)))
    assert [case.status for case in grade.cases] == ["error"]
    assert (await grader.grade("raise SystemExit" + code, TextTask([TextCase("", "1")]))).passed is False


async def test_programs_read_their_case_and_no_other(grader: Grader) -> None:
    task = TextTask([TextCase(f"{n}\n", f"{n * n}\n") for n in range(1, 5)])
    assert (await grader.grade("print(int(input()) ** 2)", task)).share == 1
    assert (await grader.grade("print(min(int(input()) ** 2, 9))", task)).share == 0.75
    assert (await grader.grade("print(1)\nprint(4)\nprint(9)\nprint(16)", task)).share == 0


async def test_a_worker_that_dies_is_no_verdict() -> None:
    async with SandboxPool(workers=1, limits=Limits(wall_s=20)) as own:
        sleeper = "import time\ndef solve(n):\n    time.sleep(n)\n    return 'wrong'"
        running = asyncio.create_task(Grader(own).grade(sleeper, expecting((15, 15), (15, 15))))
        await begun(own, 2)
        os.kill(own.workers[0].pid, signal.SIGKILL)
        grade = await running
        assert grade.failed
        assert {case.status for case in grade.cases} == {"infra_error"}
        for _ in range(50):  # what is sent while a worker dies has no verdict either
            grade = await Grader(own).grade(sleeper, expecting((0, "wrong")))
            if not grade.failed:
                break
            await asyncio.sleep(0.2)
        assert grade.passed is True


async def test_a_closed_pool_is_no_verdict() -> None:
    async with SandboxPool(workers=1) as own:
        pass
    assert (await Grader(own).grade(BY_CASE, expecting((1, 1)))).failed


async def test_cancelling_a_grade_ends_its_runs(pool: SandboxPool, grader: Grader) -> None:
    sleeper = "import time\ndef solve(n):\n    time.sleep(99)"
    running = asyncio.create_task(grader.grade(sleeper, expecting(*[(1, 1)] * 8)))
    await until(lambda: sum(worker.load for worker in pool.workers) > 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: sum(worker.load for worker in pool.workers) == 0)


async def test_large_values_do_not_stall_the_event_loop(grader: Grader) -> None:
    rows = [{"row": n, "cells": [n, str(n), (n,)]} for n in range(12_000)]
    code = "def solve(n): return [{'row': n, 'cells': [n, str(n), (n,)]} for n in range(12_000)]"
    lags = [0.0]

    async def watch() -> None:
        while True:
            began = time.thread_time()  # of the processor: what else is busy takes none of it
            await asyncio.sleep(0.005)
            lags.append(time.thread_time() - began)

    watcher = asyncio.create_task(watch())
    other = [*rows[:-1], {"row": 0, "cells": [0.0, "0", ()]}]
    grade = await grader.grade(code, expecting((1, rows), (1, other)), pace=Pace(parallel=1))
    watcher.cancel()
    assert [case.status for case in grade.cases] == ["passed", "wrong"]
    assert len(grade.cases[1].detail) < 1000
    assert max(lags) < 1.0
