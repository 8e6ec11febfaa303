"""Tests that are code: how their cases are found and judged, and that nothing of them reaches the candidate."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from agentrl.sandbox import Limits, SandboxPool
from agentrl.sandbox.grading import CodeTask, Grade, Grader, Pace
from tests.sandbox.conftest import begun

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOUBLE = "def double(x):\n    return x * 2\n"


async def graded(grader: Grader, code: str, tests: str = "", pace: Pace | None = None, **more: object) -> Grade:
    return await grader.grade(code, CodeTask(more.pop("functions", ["double"]), tests, **more), pace=pace)


def statuses(grade: Grade) -> dict[str, str]:
    return {case.name: case.status for case in grade.cases}


async def test_cases_of_every_form(grader: Grader) -> None:
    tests = """
import unittest
def helper(): raise ValueError("not a case")
def check(candidate):
    assert candidate(1) == 2
    assert double("a") == "aa"
def test_list():
    assert double([1]) == [1, 1]
def test_wrong():
    assert double(1) == 3
class Double(unittest.TestCase):
    def setUp(self): self.two = 2
    def test_two(self): self.assertEqual(double(self.two), 4)
    def test_wrong(self): self.assertEqual(double(self.two), 5)
    def test_raises(self):
        with self.assertRaises(TypeError): double(None)
"""
    grade = await graded(grader, DOUBLE, tests, checks=["assert double(5) == 10", "assert double(5) == 11"])
    assert statuses(grade) == {
        "check": "passed", "test_list": "passed", "test_wrong": "wrong", "Double.test_raises": "passed",
        "Double.test_two": "passed", "Double.test_wrong": "wrong", "check 0": "passed", "check 1": "wrong",
    }  # fmt: skip
    assert grade.share == 5 / 8
    assert "assert double(1) == 3" in grade.why


async def test_bare_asserts_are_one_case(grader: Grader) -> None:
    assert statuses(await graded(grader, DOUBLE, "assert double(1) == 2")) == {"module": "passed"}
    assert statuses(await graded(grader, DOUBLE, "assert double(1) == 3")) == {"module": "wrong"}


async def test_stopping_early(grader: Grader) -> None:
    checks = ["assert double(1) == 3", "assert double(1) == 2"]
    grade = await graded(grader, DOUBLE, checks=checks, pace=Pace(stop_early=True))
    assert statuses(grade) == {"check 0": "wrong"}


async def test_types_cross_both_ways(grader: Grader) -> None:
    tests = """
def check(candidate):
    for value in (1, True, None, "a", b"a", 2.5, (1, (2,)), {1, 2}, frozenset({1}), {1: (2,)}, {"$": 1}, 9**6000, [()]):
        got = candidate(value)
        assert got == value and type(got) is type(value), value
    assert candidate(x=3) == 3
"""
    assert (await graded(grader, "def double(x): return x", tests)).passed is True


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("assert double(1) ==", "SyntaxError"),
        ("import nowhere_at_all\nassert double(1) == 2", "nowhere_at_all"),
        ("def check(candidate): assert candidat(1) == 2", "candidat"),
        ("def check(candidate): pass", "without a call"),
        ("x = 1", "no case"),
        ("assert False", "without a call"),
        ("def check(candidate): assert candidate(object()) is None", "object"),
        ("def check(candidate): assert candidate(lambda: 1) is None", "function"),
        ("import os\ndef check(candidate):\n    candidate(1)\n    os._exit(0)", ""),
        ("import sys\ndef check(candidate):\n    candidate(1)\n    sys.exit(0)", "SystemExit"),
    ],
)
async def test_a_broken_task_is_no_score(grader: Grader, tests: str, why: str) -> None:
    grade = await graded(grader, DOUBLE, tests)
    assert "broken_task" in [case.status for case in grade.cases], grade
    assert grade.failed
    assert why in grade.why


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def double(x):\n    while True: pass", "timeout"),
        ("import os\ndef double(x): os._exit(0)", "error"),
        ("def double(x): raise SystemExit", "error"),
        ("def double(x): raise KeyboardInterrupt", "error"),
        ("def double(x): return bytearray(10**10)", "memory"),
        ("import os\ndef double(x): os.abort()", "signal"),
        ("def double(x): print('x' * (3 << 20))", "output_limit"),
        ("def double(x): return iter([2])", "error"),
        ("def double(x): raise ValueError", "error"),
        ("def double(x): raise AssertionError", "wrong"),
        ("def double(x): raise SyntaxError", "error"),
        ("import unittest\ndef double(x): raise unittest.SkipTest", "error"),
        ("def double(x): return {'$': 'int', 'v': 'zz'}", "wrong"),
        ("def double(x): return", "error"),
        ("", "error"),
    ],
)
async def test_what_a_call_comes_to_is_the_cases_status_and_never_a_failure(
    grader: Grader, code: str, status: str
) -> None:
    """Else a candidate could choose to be left out rather than to be wrong."""
    tests = "def check(candidate):\n    assert candidate(1) + 0 == 2"
    assert statuses(await graded(grader, code, tests)) == {"check": "error" if "$" in code else status}


@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit"])
async def test_no_exception_of_the_candidates_ends_a_loop_of_the_tests(grader: Grader, error: str) -> None:
    tests = """
def good(case): return candidate(case) == 2 * case
def check(candidate):
    assert all(map(good, [1, 2, 3]))
    it = map(good, [1, 2])
    assert list(it) == [True, True]
"""
    assert (await graded(grader, DOUBLE, tests)).passed is True
    assert (await graded(grader, f"def double(x): raise {error}", tests)).passed is False


async def test_tests_that_catch_everything_do_not_hide_a_call_that_came_to_nothing(grader: Grader) -> None:
    tests = """
def check(candidate):
    try: candidate(1)
    except BaseException: pass
    assert True
"""
    for code in ("import os\ndef double(x): os._exit(0)", "def double(x):\n    while True: pass"):
        assert (await graded(grader, code, tests)).passed is False
    assert (await graded(grader, "def double(x): raise ValueError", tests)).passed is True


async def test_the_candidate_cannot_change_what_the_tests_compute_with(grader: Grader) -> None:
    tests = """
def check(candidate):
    xs = [1, 2, 3]
    got = candidate(xs)
    assert xs == [1, 2, 3]
    assert got == sum(xs)
"""
    mutating = "def double(xs):\n    xs.clear()\n    return 0"
    assert (await graded(grader, mutating, tests)).passed is False
    right = "def double(xs):\n    n = sum(xs)\n    xs.clear()\n    return n"
    assert (await graded(grader, right, tests)).passed is True


async def test_nothing_is_kept_from_call_to_call(grader: Grader) -> None:
    counter = """
import os
calls = []
def double(x):
    calls.append(x)
    seen = os.environ["TMPDIR"] + "/seen"
    with open(seen, "a+") as file: file.write("x")
    return len(calls) + os.path.getsize(seen) - 1
"""
    tests = "def check(candidate):\n    assert [candidate(0) for _ in range(3)] == [1, 1, 1]"
    assert (await graded(grader, counter, tests)).passed is True


SEEKER = """
import gc, glob, linecache, os, re, sys
WORD = re.compile("hidden[_]canary_[0-9][0-9]")  # which does not match its own text
def double(x, **more):
    seen = [repr(sys.argv), repr(dict(os.environ)), repr(linecache.cache), repr(sorted(sys.modules))]
    for thing in gc.get_objects():
        if type(thing) in (dict, list, tuple): seen.append(ascii(thing)[:100_000])
    frame = sys._getframe()
    while frame:
        seen.append(ascii(frame.f_locals) + ascii(frame.f_globals))
        frame = frame.f_back
    for place in ("/proc/*/cmdline", "/work/**", "/tmp/**", "/dev/shm/**"):
        for path in glob.glob(place, recursive=True):
            try: seen.append(open(path, errors="replace").read())
            except OSError: pass
    for fd in range(3, 64):
        try:
            os.set_blocking(fd, False)
            seen.append(repr(os.read(fd, 1 << 20)))
        except OSError: pass
    try:
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
            for line in maps:
                low, high = (int(part, 16) for part in line.split()[0].split("-"))
                if "rw" not in line: continue
                try:
                    memory.seek(low)
                    seen.append(memory.read(high - low).decode("latin-1"))
                except (OSError, ValueError, OverflowError): pass
    except OSError: pass
    return any(WORD.search(text) for text in seen)
"""


async def test_nothing_of_the_tests_is_in_the_candidates_sandbox(grader: Grader) -> None:
    tests = """
hidden_canary_11 = 7
def check(candidate):
    found = candidate("hidden" "_canary", hidden_canary_x=3)
    assert found is False, "hidden_canary_12"
"""
    grade = await graded(grader, SEEKER, tests, setup="# hidden_canary_13 of the task\n")
    assert grade.passed is True, grade


async def test_the_seeker_finds_what_is_there(grader: Grader) -> None:
    there = "def check(candidate):\n    assert candidate('hidden_canary_14') is True"
    assert (await graded(grader, SEEKER, there)).passed is True
    assert (await graded(grader, SEEKER + "\n# hidden_canary_15\n", "assert double(1) is True")).passed is True


async def test_several_functions_and_helpers_of_the_task(grader: Grader) -> None:
    code = "def up(x): return x + 1\ndef down(x): return x - 1\ndef helper(x): return 'cheat'"
    tests = "for n in range(3): assert down(up(n)) == n and helper(n) == n and candidate(n) == n + 1"
    setup = "def helper(n): return n\ndef up(n): ..."
    assert (await graded(grader, code, tests, functions=["up", "down"], setup=setup)).passed is True


async def test_tests_that_do_not_end(grader: Grader, pool: SandboxPool) -> None:
    short = Grader(pool, limits=Limits(wall_s=6, cpu_s=0.7))
    for loop in ("while True: pass", "import time; time.sleep(99)"):
        grade = await graded(short, DOUBLE, f"def check(candidate):\n    candidate(1)\n    {loop}")
        assert statuses(grade) == {"check": "timeout"}


async def test_many_grades_at_once_do_not_wait_for_each_other_for_ever(pool: SandboxPool) -> None:
    grader = Grader(pool, pace=Pace(deadline_s=200))
    tests = "def check(candidate):\n    for n in range(4): assert candidate(n) == 2 * n"
    grades = await asyncio.gather(*(graded(grader, DOUBLE, tests) for _ in range(40)))
    assert all(grade.passed for grade in grades)


async def test_deadline_and_the_candidates_own_time(grader: Grader) -> None:
    tests = "def check(candidate):\n    for n in range(9): candidate(n)"
    slow = "import time\ndef double(x):\n    time.sleep(0.3)\n    return 1"
    late = await graded(grader, slow, tests, pace=Pace(deadline_s=1.0))
    assert late.failed
    assert statuses(await graded(grader, slow, tests, pace=Pace(candidate_s=0.5))) == {"check": "timeout"}


async def test_tests_that_hang_before_the_first_call_are_broken(grader: Grader) -> None:
    grade = await graded(grader, DOUBLE, "while True: pass")
    assert statuses(grade) == {"module": "broken_task"}


async def test_a_value_that_the_tests_make_too_large_to_hand_back_is_no_way_out(grader: Grader) -> None:
    tests = "def check(candidate):\n    assert candidate(candidate('ab') * 50) is None"
    huge = "def double(x): return None if len(x) > 2 else 'x' * 500_000"
    assert (await graded(grader, huge, tests)).passed is False


async def test_values_that_are_slow_to_build_are_the_candidates_affair(grader: Grader) -> None:
    colliding = """
def double(x): return {"$": "set", "v": [n * (2**61 - 1) for n in range(1, 30_000)]}
import sys
sys.modules["grading_inside.answer"].encode = lambda value: value
"""
    grade = await graded(grader, colliding, "def check(candidate):\n    assert candidate(1) == {2}")
    assert statuses(grade) == {"check": "timeout"}


async def test_a_worker_that_dies_is_no_verdict() -> None:
    async with SandboxPool(workers=1) as own:
        tests = "def check(candidate):\n    assert candidate(9) == 1"
        slow = "import time\ndef double(x): time.sleep(x)"
        running = asyncio.create_task(graded(Grader(own), slow, tests))
        await begun(own, 2)  # the tests, and the candidate that they call
        os.kill(own.workers[0].pid, signal.SIGKILL)
        grade = await running
        assert grade.failed, grade
        assert "infra_error" in grade.why


async def test_tests_may_import_the_functions(grader: Grader) -> None:
    tests = (
        "import solution\nfrom solution import double as two\ndef test_it(): assert two(1) == solution.double(1) == 2"
    )
    assert statuses(await graded(grader, DOUBLE, tests, module="solution")) == {"test_it": "passed"}
    assert (await graded(grader, DOUBLE, tests)).failed


async def test_tests_of_pytest(grader: Grader) -> None:
    tests = """
import psutil
import pytest
def test_raises():
    with pytest.raises(TypeError): double(None)
def test_near(): assert double(0.1) == pytest.approx(0.2)
def test_fails():
    if double(1) != 3: pytest.fail("it is not 3")
"""
    short = {"test_raises": "passed", "test_near": "passed", "test_fails": "wrong"}
    assert statuses(await graded(grader, DOUBLE, tests)) == short
    fixture = "import pytest\n@pytest.mark.parametrize('n', [1])\ndef test_it(n): assert double(n) == 2"
    assert (await graded(grader, DOUBLE, fixture)).failed
