"""The cases of one grade: whichever ends first, the grade is the same."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.sandbox.grading import CaseResult, Pace
from agentrl.sandbox.grading.cases import run_cases

CASES = st.lists(
    st.tuples(st.sampled_from(["passed", "passed", "wrong", "infra_error"]), st.integers(0, 20)), min_size=1
)


@settings(max_examples=200, deadline=None)
@given(CASES, st.integers(1, 6))
def test_stopping_early_comes_to_what_one_case_after_the_other_does(
    cases: list[tuple[str, int]], parallel: int
) -> None:
    ended = set()

    async def judge(number: int) -> CaseResult:
        status, turns = cases[number]
        for _ in range(turns):
            await asyncio.sleep(0)
        ended.add(number)
        return CaseResult(str(number), status)

    names = [str(number) for number in range(len(cases))]
    found = asyncio.run(run_cases(names, judge, Pace(parallel=parallel, stop_early=True)))
    first = next((number for number, (status, _) in enumerate(cases) if status != "passed"), len(cases))
    wanted = [status if number <= first else "skipped" for number, (status, _) in enumerate(cases)]
    assert [case.status for case in found] == wanted
    assert set(range(min(first + 1, len(cases)))) <= ended


async def test_a_case_that_fails_waits_for_those_before_it_and_ends_those_after_it() -> None:
    held, ended = asyncio.Event(), []

    async def judge(number: int) -> CaseResult:
        try:
            if number == 0:
                await held.wait()
            elif number == 2:
                await asyncio.Event().wait()
        finally:
            ended.append(number)
            held.set() if number == 2 else None
        return CaseResult(str(number), "wrong" if number == 1 else "passed")

    found = await run_cases(["0", "1", "2", "3"], judge, Pace(parallel=3, stop_early=True))
    assert [case.status for case in found] == ["passed", "wrong", "skipped", "skipped"]
    assert ended == [1, 2, 0]


async def test_an_error_of_the_grader_itself_is_raised() -> None:
    async def judge(number: int) -> CaseResult:
        raise KeyError(number)

    with pytest.raises(ExceptionGroup):
        await run_cases(["0", "1"], judge, Pace(parallel=2))
