"""HumanEval's tests, which are code: all solutions pass; a changed line, an exit, a flood of output and a loop do not.

A sample in every run, all of it in `make test-slow`. What survives is listed, and judged in docs/grading.md.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentrl.sandbox import SandboxPool
from agentrl.sandbox.grading import Grade, Grader

from .humaneval import Problem, mutants, problems

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Mutants that pass: problem:line of the solution -> why.
SURVIVORS = {
    "HumanEval/6:2": "right: no group is less deep than 1",
    "HumanEval/10:6": "weak tests: 'xyy' has a longer answer than the shortest",
    "HumanEval/20:7": "weak tests: no negative numbers",
    "HumanEval/32:0": "right: another bracket around the zero",
    "HumanEval/32:3": "right: another bracket around the zero",
    "HumanEval/35:0": "weak tests: no list of one",
    "HumanEval/36:4": "right: only sevens are counted",
    "HumanEval/39:9": "right: the same primes follow",
    "HumanEval/40:1": "weak tests: one element is used twice",
    "HumanEval/40:2": "weak tests: one element is used twice",
    "HumanEval/46:6": "right: it only keeps more",
    "HumanEval/59:2": "right: never reached",
    "HumanEval/59:3": "weak tests: 4 counts as prime",
    "HumanEval/59:7": "right: 2 is the least there can be",
    "HumanEval/59:8": "weak tests: no power of 2",
    "HumanEval/64:0": "weak tests: no word with x",
    "HumanEval/75:1": "weak tests: 4 counts as prime, 16 is not asked",
    "HumanEval/81:7": "weak tests: no such mark",
    "HumanEval/81:15": "weak tests: no such mark",
    "HumanEval/81:17": "weak tests: no such mark",
}

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


def only_on_the_strongest(pool: SandboxPool) -> None:
    if pool.tier in ("landlock", "bwrap"):
        pytest.skip("long enough on one tier")


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


async def check_beside_the_plain_way(pool: SandboxPool, grader: Grader, chosen: list[Problem]) -> None:
    """For code that does not cheat, tests at a distance say what tests in the same process say."""
    made = [(mutant, problem) for problem in chosen for mutant in mutants(problem)]
    found = await grades(grader, [(mutant.code, problem) for mutant, problem in made])
    room = asyncio.Semaphore(8)

    async def plain(code: str, problem: Problem) -> bool:
        async with room:
            return (await pool.run(f"{code}\n{problem.task.tests}\ncheck({problem.entry})\n")).ok

    beside = await asyncio.gather(*(plain(mutant.code, problem) for mutant, problem in made))
    differ = [mutant.name for (mutant, _), ours, other in zip(made, found, beside, strict=True) if ours.passed != other]
    assert differ == []


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
async def test_all_mutants(pool: SandboxPool, grader: Grader, real_data: Path) -> None:
    only_on_the_strongest(pool)
    await check_mutants(grader, problems(real_data), most=1000)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_the_same_verdicts_as_in_one_process(pool: SandboxPool, grader: Grader, real_data: Path) -> None:
    only_on_the_strongest(pool)
    await check_beside_the_plain_way(pool, grader, problems(real_data))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS.keys())
async def test_all_cheats(pool: SandboxPool, grader: Grader, real_data: Path, cheat: str) -> None:
    only_on_the_strongest(pool)
    await check_cheats(grader, problems(real_data), [cheat])
