"""Limits at their edges, and a caller that has come to its own: never a verdict, and never an OSError."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agentrl.sandbox import Limits, SandboxError, SyncSandboxPool
from agentrl.sandbox.dialogue import Dialogue
from agentrl.sandbox.streams import CappedPipe
from tests.sandbox.attack import LIMITS
from tests.sandbox.conftest import opened

SMALL = {"files": 1, "processes": 1, "disk_bytes": 1, "open_files": 3, "output_bytes": 1, "result_bytes": 1}


def test_a_time_in_which_no_walls_can_stand_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Limits.wall_s is 1e-06: give 0.01 s or more"):
        Limits(wall_s=1e-6)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_smallest_limits_are_no_failure_of_the_sandbox(pool: SyncSandboxPool, name: str) -> None:
    limits = dataclasses.replace(LIMITS, **{name: SMALL[name]})
    assert pool.run("1", limits=limits).ok
    assert pool.call("def f(): return 1", "f", limits=limits).run.status in ("ok", "error")


def test_a_run_may_have_as_many_files_as_it_was_allowed(pool: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, files=3)
    assert pool.run("for n in range(3): open(f'f{n}', 'w').close()", limits=limits).ok


def test_given_files_that_are_too_much_together_are_no_failure_of_the_sandbox(pool: SyncSandboxPool) -> None:
    files = {str(n): bytes(LIMITS.disk_bytes // 2) for n in range(3)}
    result = pool.run("print(1)", files=files)
    assert (result.status, result.stdout) == ("error", "")


def test_many_runs_at_once_have_the_descriptors_that_one_has() -> None:
    limits = dataclasses.replace(LIMITS, open_files=16, wall_s=30)
    for pool in opened("zygote", running=60):

        async def together(pool: SyncSandboxPool) -> set[str]:
            met = asyncio.gather(*(pool.pool.run("import time\ntime.sleep(1)", limits=limits) for _ in range(60)))
            return {f"{each.status} {each.error}" for each in await met}

        assert pool.wait_for(together(pool)) == {"ok "}


def test_a_call_finds_its_own_module(pool: SyncSandboxPool) -> None:
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport sys\n"
        "@dataclass\nclass P:\n    x: int\n"
        "def f(): return [P(3).x, P.__module__, sys.modules[P.__module__].f is f]"
    )
    answer = pool.call(code, "f")
    assert answer.value == [3, "candidate", True], answer.run


def test_a_mark_of_byte_order_at_the_start_is_no_error(pool: SyncSandboxPool) -> None:
    assert pool.run("\ufeffprint(1)").stdout == "1\n"
    assert pool.call("\ufeffdef f(): return 1", "f").value == 1
    with pool.session() as session:
        assert session.run("\ufeff1 + 1").stdout == "2\n"


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """As where thousands of connections are open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    held = []
    try:
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_without_descriptors_left_nothing_is_scored(pool: SyncSandboxPool) -> None:
    async def tried() -> list[str]:
        with no_descriptors_left():
            run, call = await pool.pool.run("print(1)"), await pool.pool.call("def f(): return 1", "f")
            said = [run.status, call.run.status]
            for opening in (pool.pool.session(), Dialogue(pool.pool, "1", LIMITS)):
                with pytest.raises(SandboxError, match="descriptors"):
                    await opening.__aenter__()
            return [*said, run.error, call.run.error]

    gc.collect()
    run, call, why, why_call = pool.wait_for(tried())
    assert (run, call) == ("infra_error", "infra_error")
    assert "Too many open files" in why
    assert "ulimit -n" in why_call
    assert pool.run("print(1)").ok


@pytest.mark.parametrize("left", range(1, 9))
def test_with_few_descriptors_left_files_are_not_taken_for_missing(pool: SyncSandboxPool, left: int) -> None:
    """Wherever on the way they run out."""

    async def tried() -> tuple[str, list[str]]:
        with no_descriptors_left():
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft + left, hard))
            result = await pool.pool.run("open('x', 'w').write('1')", collect_files=["x"])
            return result.status, list(result.files)

    assert pool.wait_for(tried()) in [("ok", ["x"]), ("infra_error", [])]


async def test_what_comes_byte_by_byte_costs_what_it_weighs() -> None:
    reader, writer = os.pipe()
    pipe = CappedPipe(reader, 1 << 20, lambda: None, lambda: None)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            os.write(writer, b"x")
            pipe._read()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(writer)
    assert pipe.take_bytes() == (b"x" * 20_000, False)
    assert used < 100_000
    pipe.close()


def test_a_run_whose_first_thread_has_left_has_its_time_and_no_more(pool: SyncSandboxPool) -> None:
    code = (
        "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    assert pool.run(code, limits=dataclasses.replace(LIMITS, wall_s=0.6)).status == "timeout"
