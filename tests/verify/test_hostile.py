"""Hostile answers: each ends within its limit, nothing stalls the event loop, and the pool is whole afterwards."""

from __future__ import annotations

import asyncio
import re
import time

import psutil
import pytest

from agentrl.verify import GoldError, Judgement, Verdict, Verifier
from agentrl.verify.extract import extract
from agentrl.verify.limits import Limits, over

from .conftest import LIMIT_S, needs_math_verify
from .mix import CAPPED, HOSTILE, SYMBOLIC

STALL_S = 0.05  # of computing in the event loop without a pause
TRIES = 10  # on a machine that others use too, anything can be late; what stalls does so each time

RIGHT = {  # the hostile ones that are right all the same
    "spaces", "new lines", "closing braces", "no-break spaces", "zero-width", "tower against itself",
    "equal polynomials", "large set against itself",
}  # fmt: skip


async def ask(verifier: Verifier, name: str) -> Judgement:
    gold, response = HOSTILE[name]
    return await verifier.verify(gold, response)


async def lag_s(verifier: Verifier, name: str) -> float:
    """Processor time that the event loop's thread took in its longest turn, in seconds: a busy machine takes none."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.015)
    await ask(verifier, name)
    await asyncio.sleep(0.015)
    watching.cancel()
    return longest


async def check_whole(verifier: Verifier, workers: int = 2) -> None:
    """All workers there, alive, and right about a good answer that is not in the cache."""
    checks = [verifier.verify("x^2+1", f"\\boxed{{1+x^2+{n}-{n}}}") for n in (time.time_ns() % 1000, 1001)]
    assert all(found.correct for found in await asyncio.gather(*checks))
    for _ in range(3000):
        if len(verifier.worker_pids()) == workers:
            break
        await asyncio.sleep(0.02)
    pids = verifier.worker_pids()
    assert len(pids) == workers
    assert all(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_there_are_enough_and_of_both_kinds() -> None:
    capped = {name for name, (_, response) in HOSTILE.items() if over(extract(response).text, Limits())}
    assert len(HOSTILE) >= 60
    assert len(SYMBOLIC.keys() - capped) >= 40


@needs_math_verify
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
async def test_many_at_once(quick: Verifier, every: int) -> None:
    """A queue of them, with good answers in between: those are judged, and are not held up by more than the queue."""
    names = [*CAPPED, *list(SYMBOLIC)[::every]]
    good = [quick.verify("x^2+1", f"\\boxed{{{n}+x^2-{n - 1}}}") for n in range(2, 12)]
    found = await asyncio.gather(*(ask(quick, name) for name in names), *good)
    assert all(judged.correct for judged in found[len(names) :])
    verdicts = {name: judged.verdict for name, judged in zip(names, found, strict=False)}
    allowed = {Verdict.WRONG, Verdict.UNPARSABLE, Verdict.TIMEOUT}
    assert {name for name, verdict in verdicts.items() if verdict not in allowed} <= RIGHT
    assert sum(verdict is Verdict.TIMEOUT for verdict in verdicts.values()) >= 20 / every  # else they are not hostile
    await check_whole(quick)


@needs_math_verify
@pytest.mark.parametrize("name", CAPPED)
async def test_what_the_rules_meet_does_not_stall_the_loop(quick: Verifier, name: str) -> None:
    late_s = [await lag_s(quick, name)]
    while min(late_s) > STALL_S and len(late_s) < TRIES:
        late_s.append(await lag_s(quick, name))
    assert min(late_s) <= STALL_S


@needs_math_verify
@pytest.mark.slow
async def test_each_alone_ends_within_its_limit_without_a_stall() -> None:
    async with Verifier(limit_s=LIMIT_S, cache_size=0) as verifier:
        await verifier.ready()
        for name in HOSTILE:
            late_s, took_s = [], []
            for _ in range(TRIES):
                began = time.perf_counter()
                late_s.append(await lag_s(verifier, name))
                took_s.append(time.perf_counter() - began - 0.03)
                if late_s[-1] <= STALL_S and took_s[-1] <= LIMIT_S + 0.1:
                    break
            assert min(late_s) <= STALL_S, name
            assert min(took_s) <= LIMIT_S + 0.1, name
        await check_whole(verifier)


@needs_math_verify
async def test_a_hostile_gold_answer_is_named(quick: Verifier) -> None:
    """One whose reading alone takes long: too long, and the task is broken, or on a quick machine in time after all."""
    gold = SYMBOLIC["large set"][1]
    try:
        found = await quick.verify(gold, "\\boxed{x+1}")
    except GoldError as error:
        told = str(error)
    else:
        told = found.reason
    assert re.search("it was not read within 2 s|no result within 2 s", told)
    await check_whole(quick)
