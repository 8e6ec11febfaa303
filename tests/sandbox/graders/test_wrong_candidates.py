"""No wrong candidate passes, each control does, and each attack that says so fools graders as people write them."""

from __future__ import annotations

import pytest

from agentrl.sandbox import SandboxPool
from agentrl.sandbox.grading import CodeTask, FunctionCase, FunctionTask, Grader, Output, TextCase, TextTask

from .candidates import FUNCTIONS, Wrong
from .naive import CASES, WANTED, fooled
from .programs import PROGRAMS

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTION_TASK = FunctionTask("solve", [FunctionCase((xs,), wanted) for xs, wanted in CASES])
CODE_TASK = CodeTask(
    ["solve"],
    "def check(candidate):\n" + "".join(f"    assert candidate({xs}) == {wanted}\n" for xs, wanted in CASES),
)
TEXT_TASK = TextTask([TextCase("", WANTED)])
TOLERANT_TASK = TextTask([TextCase("", WANTED)], Output("tokens", tolerance=1e-6))


def named(candidates: list[Wrong], every: int = 1) -> pytest.MarkDecorator:
    """All of them in slow runs, one of so many in others."""
    marks = [() if number % every == 0 else pytest.mark.slow for number in range(len(candidates))]
    chosen = [pytest.param(each, id=each.name, marks=mark) for each, mark in zip(candidates, marks, strict=True)]
    return pytest.mark.parametrize("wrong", chosen)


@named(FUNCTIONS)
async def test_function_that_is_called_by_cases(grader: Grader, wrong: Wrong) -> None:
    grade = await grader.grade(wrong.code, FUNCTION_TASK)
    assert grade.passed is False, grade
    assert "infra_error" not in [case.status for case in grade.cases]


@named(FUNCTIONS, every=4)
async def test_function_that_is_called_by_tests(grader: Grader, wrong: Wrong) -> None:
    grade = await grader.grade(wrong.code, CODE_TASK)
    assert grade.passed is False, grade


@pytest.mark.parametrize("task", [FUNCTION_TASK, CODE_TASK], ids=["cases", "tests"])
@pytest.mark.parametrize("control", sorted({each.control for each in FUNCTIONS}), ids=lambda code: str(len(code)))
async def test_right_function(grader: Grader, control: str, task: FunctionTask | CodeTask) -> None:
    grade = await grader.grade(control, task)
    assert grade.passed is True, grade


@named(PROGRAMS)
async def test_program(grader: Grader, wrong: Wrong) -> None:
    grade = await grader.grade(wrong.code, TEXT_TASK)
    assert grade.passed is False, grade
    assert not grade.failed
    assert (await grader.grade(wrong.control, TEXT_TASK)).passed is True


@named([each for each in PROGRAMS if each.name not in ("in_one_line", "line_separators", "overwritten")], every=4)
async def test_program_by_tokens(grader: Grader, wrong: Wrong) -> None:
    """The three that are left out print the right tokens."""
    assert (await grader.grade(wrong.code, TOLERANT_TASK)).passed is False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "naive"),
    [pytest.param(each, naive, id=f"{each.name}-{naive}") for each in (*FUNCTIONS, *PROGRAMS) for naive in each.fools],
)
async def test_the_attack_does_something(pool: SandboxPool, wrong: Wrong, naive: str) -> None:
    if pool.tier == "landlock":
        pytest.skip("shown on the strongest tier")
    assert await fooled(pool, naive, wrong.code)


async def test_enough_of_them() -> None:
    names = [each.name for each in (*FUNCTIONS, *PROGRAMS)]
    assert len(FUNCTIONS) > 50
    assert len({each.name for each in FUNCTIONS}) == len(FUNCTIONS)
    assert len(names) > 80
