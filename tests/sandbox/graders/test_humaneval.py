"""HumanEval's tests, which are code: all solutions pass; a changed line, an exit, a flood of output and a loop do not.

A sample in every run, all of it in `make test-slow`. What survives is listed, and judged in docs/grading.md.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentrl.sandbox.grading import Grade, Grader

from .humaneval import Problem, mutants, problems

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Mutants that pass: problem:line of the solution -> why.
SURVIVORS: dict[str, str] = {}

CHEATS = {
    "exits": "import sys\nsys.exit(0)\n",
    "exits hard": "import os\nos._exit(0)\n",
    "exits in the call": "import sys\ndef {entry}(*args, **kwargs): sys.exit(0)\n",
    "exits hard in the call": "import os\ndef {entry}(*args, **kwargs): os._exit(0)\n",
    "prints everything": "def {entry}(*args, **kwargs):\n    for n in range(10**5): print(n, 'passed')\n",
    "loops": "def {entry}(*args, **kwargs):\n    while True: pass\n",
    "equals all": "class Any:\n    __eq__ = lambda *_: True\ndef {entry}(*args, **kwargs): return Any()\n",
    "raises nothing": "def {entry}(*args, **kwargs): raise StopIteration\n",
    "gives the question back": "def {entry}(*args, **kwargs): return args[0]\n",
}


async def grades(grader: Grader, candidates: list[tuple[str, Problem]]) -> list[Grade]:
    """Eight at once."""
    room = asyncio.Semaphore(8)

    async def one(code: str, problem: Problem) -> Grade:
        async with room:
            return await grader.grade(code, problem.task)

    return await asyncio.gather(*(one(code, problem) for code, problem in candidates))


async def check_solutions(grader: Grader, chosen: list[Problem]) -> None:
    found = await grades(grader, [(problem.code, problem) for problem in chosen])
    wrong = {problem.name: grade.why for problem, grade in zip(chosen, found, strict=True) if not grade.passed}
    assert wrong == {}


async def check_mutants(grader: Grader, chosen: list[Problem], most: int) -> None:
    made = [(mutant, problem) for problem in chosen for mutant in list(mutants(problem))[:most]]
    assert len(made) >= 0.9 * len(chosen)
    found = await grades(grader, [(mutant.code, problem) for mutant, problem in made])
    named = {mutant.name: (mutant.line, grade) for (mutant, _), grade in zip(made, found, strict=True)}
    assert [each for each in named.items() if each[1][1].failed] == []
    passed = {name: line for name, (line, grade) in named.items() if grade.passed}
    assert {name: line for name, line in passed.items() if name not in SURVIVORS} == {}
    if len(made) > 300:
        assert passed.keys() == SURVIVORS.keys()


async def check_cheats(grader: Grader, chosen: list[Problem], cheats: list[str]) -> None:
    made = [(cheat.format(entry=problem.entry), problem) for problem in chosen for cheat in cheats]
    found = await grades(grader, made)
    assert [(code, grade) for (code, _), grade in zip(made, found, strict=True) if grade.passed is not False] == []


async def test_sample_of_solutions(grader: Grader, real_data: Path) -> None:
    await check_solutions(grader, problems(real_data)[::5])


async def test_sample_of_mutants(grader: Grader, real_data: Path) -> None:
    await check_mutants(grader, problems(real_data)[::3], most=1)


async def test_sample_of_cheats(grader: Grader, real_data: Path) -> None:
    chosen = problems(real_data)
    for number, cheat in enumerate(CHEATS.values()):
        await check_cheats(grader, chosen[number::40], [cheat])


@pytest.mark.slow
async def test_all_solutions(grader: Grader, real_data: Path) -> None:
    chosen = problems(real_data)
    assert len(chosen) == 82
    await check_solutions(grader, chosen)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_all_mutants(grader: Grader, real_data: Path) -> None:
    await check_mutants(grader, problems(real_data), most=1000)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS.keys())
async def test_all_cheats(grader: Grader, real_data: Path, cheat: str) -> None:
    await check_cheats(grader, problems(real_data), [cheat])
