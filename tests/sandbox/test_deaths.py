"""Whoever is killed in the middle, nothing is left, and nobody takes it for a failure of the program."""

from __future__ import annotations

import asyncio
import glob
import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from agentrl.sandbox import Limits, SandboxPool, SyncSandboxPool
from tests.processes import children, left_since, processes, still_running
from tests.sandbox.attack import REPOSITORY
from tests.sandbox.conftest import begun, many
from tests.sandbox.serving import until

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
LONG = Limits(wall_s=100)


def server_of(pool: SyncSandboxPool) -> psutil.Process:
    """The fork server, which with namespaces is a child of the process that was started."""
    started = psutil.Process(pool.pool.workers[0].pid)
    return started.children()[0] if pool.tier == "zygote" else started


@pytest.mark.parametrize("whom", ["server", "started"])
def test_a_killed_worker_ends_its_runs_and_is_replaced(pool: SyncSandboxPool, whom: str) -> None:
    assert pool.run("print(1)").ok

    async def killed_while_running() -> str:
        started = psutil.Process(pool.pool.workers[0].pid)
        task = asyncio.create_task(pool.pool.run(SLEEP, limits=LONG))
        await begun(pool.pool)
        old = [started, *started.children(recursive=True)]
        victim = server_of(pool).pid if whom == "server" else pool.pool.workers[0].pid
        os.kill(victim, signal.SIGKILL)
        result = await asyncio.wait_for(task, 60)
        assert still_running(old) == []
        return result.status

    assert pool.wait_for(killed_while_running()) == "infra_error"
    assert pool.run("print(2)").stdout == "2\n"


def test_a_killed_caller_leaves_nothing(tier: str) -> None:
    script = f"""
import asyncio
import psutil
from agentrl.sandbox import Limits, SandboxPool
async def main():
    async with SandboxPool(tier={tier!r}, workers=2) as pool:
        async with pool.session() as session:
            await session.run("1")
            runs = [asyncio.create_task(pool.run({SLEEP!r}, limits=Limits(wall_s=100))) for _ in range(4)]
            while len(psutil.Process().children(recursive=True)) < 2 + 5:
                await asyncio.sleep(0.02)
            print("running", flush=True)
            await asyncio.gather(*runs)
asyncio.run(main())
"""
    caller = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE
    )
    try:
        assert caller.stdout is not None
        if caller.stdout.readline() != b"running\n":
            pytest.skip(f"no {tier} here")
        below = psutil.Process(caller.pid).children(recursive=True)
        assert len(below) >= 2 + 5
        caller.kill()
        assert still_running(below) == []
        deadline = time.monotonic() + 60
        while (
            folders := glob.glob(f"{tempfile.gettempdir()}/sandbox-runner-{caller.pid}-*")
        ) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert folders == []
    finally:
        caller.kill()
        caller.wait()
        caller.stdout.close()


def test_many_runs_leave_no_descriptor_process_or_file(pool: SyncSandboxPool) -> None:
    programs = [
        "print(1)",
        "1 / 0",
        "import os\nos.abort()",
        "while True: print('x' * 9999)",
        "open('f', 'w').write('x')",
    ]
    for code in programs:
        pool.run(code)
    me, before = psutil.Process(), children()
    server = server_of(pool)
    opened, servers = me.num_fds(), server.num_fds()

    async def all_of_them() -> None:
        await asyncio.gather(
            *(pool.pool.run(programs[n % len(programs)], collect_files=["f"]) for n in range(many(pool, 150)))
        )

    pool.wait_for(all_of_them())
    assert left_since(before) == []
    pool.wait_for(until(lambda: me.num_fds() == opened and server.num_fds() <= servers))
    pool.wait_for(until(lambda: not glob.glob(f"{tempfile.gettempdir()}/sandbox-runner-{os.getpid()}-*/run-*")))


def test_closing_the_pool_ends_what_runs() -> None:
    before = children()
    with SyncSandboxPool(workers=2) as pool:
        idle = len(children())
        task = asyncio.run_coroutine_threadsafe(pool.pool.run(SLEEP, limits=LONG), pool.loop)
        pool.wait_for(until(lambda: len(children()) > idle))
    assert left_since(before) == []
    assert task.result(timeout=60).status == "infra_error"


def test_a_worker_that_is_replaced_while_the_pool_closes_does_not_stay(tier: str) -> None:
    async def closed_while_mending() -> str:
        async with SandboxPool(tier=tier, workers=1) as pool:
            os.kill(pool.workers[0].pid, signal.SIGKILL)
            await asyncio.sleep(0.2)
            run = asyncio.create_task(pool.run("print(1)"))
            await asyncio.sleep(0.01)  # the new worker is starting
        return (await run).status

    before = children()
    assert asyncio.run(closed_while_mending()) == "infra_error"
    assert left_since(before) == []


def test_a_pool_whose_opening_is_cancelled_leaves_nothing(tier: str) -> None:
    async def cancelled_while_opening() -> None:
        opening = asyncio.create_task(SandboxPool(tier=tier, workers=3).__aenter__())
        wanted = 2 + (tier == "zygote")  # the first stands, others start
        while len(children() - before) < wanted and not opening.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        opening.cancel()
        await asyncio.wait({opening})

    before = children()
    asyncio.run(cancelled_while_opening())
    assert left_since(before) == []


def test_a_fork_of_the_caller_keeps_nothing_alive(tier: str) -> None:
    async def cancelled_after_a_fork(pool: SandboxPool) -> list[psutil.Process]:
        idle = children()
        task = asyncio.create_task(pool.run(SLEEP, limits=LONG))
        await until(lambda: children() - idle)
        begun = children() - idle
        forks.append(os.fork())
        if not forks[-1]:
            signal.pause()
            os._exit(0)
        task.cancel()
        return await asyncio.to_thread(still_running, processes(begun))

    forks: list[int] = []
    try:
        took = []
        while not took or (min(took) >= 1.9 and len(took) < 4):  # on a busy machine it may take as long all the same
            with SyncSandboxPool(tier=tier, workers=1) as pool:
                assert pool.wait_for(cancelled_after_a_fork(pool.pool)) == []
                before_closing = time.monotonic()
            took.append(time.monotonic() - before_closing)
        assert min(took) < 1.9  # waiting for the fork's copy of the socket takes 2 s
    finally:
        for pid in forks:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
