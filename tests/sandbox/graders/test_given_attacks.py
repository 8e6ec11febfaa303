"""The graded programs of the folder that `AGENTRL_ATTACKS` names, under the limits that its README sets."""

from __future__ import annotations

import pytest

from agentrl.sandbox.grading import FunctionCase, FunctionTask, Grade, Grader, TextCase, TextTask
from tests.sandbox.attack import CANARY, CASES, GIVEN, LIMITS, STDOUT, Attack, read  # noqa: F401 (LIMITS: for the pool)

from .test_wrong_candidates import CODE_TASK

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not GIVEN.is_dir(), reason=f"no folder {GIVEN}: set AGENTRL_ATTACKS"),
]

GRADED = [each for each in (read(GIVEN) if GIVEN.is_dir() else []) if each.expect["kind"].startswith("grade")]


def check(grade: Grade, attack: Attack) -> None:
    assert grade.passed is bool(attack.expect["reward"]), grade
    allowed = {"passed", "wrong", *attack.expect["status"]}
    assert {case.status for case in grade.cases} <= allowed
    assert not (CANARY / "pwned-eval").exists()


@pytest.mark.parametrize("attack", GRADED, ids=lambda each: each.name)
async def test_reward(grader: Grader, attack: Attack) -> None:
    task = attack.expect["task"]
    if attack.expect["kind"] == "grade_stdout":
        check(await grader.grade(attack.code, TextTask([TextCase("", "\n".join(STDOUT[task]) + "\n")])), attack)
    else:
        cases = [FunctionCase((xs,), wanted) for xs, wanted in CASES[task]]
        check(await grader.grade(attack.code, FunctionTask("solve", cases)), attack)
        check(await grader.grade(attack.code, CODE_TASK), attack)


async def test_there_are_such_programs() -> None:
    assert len(GRADED) >= 18
