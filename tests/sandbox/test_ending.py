"""How workers end, and what becomes of runs that a dying worker kept from beginning."""

from __future__ import annotations

import asyncio
import glob
import os
import signal
import tempfile
from collections.abc import Callable

import psutil
import pytest

from agentrl.sandbox import SandboxError, SandboxPool, SyncSandboxPool
from agentrl.sandbox.starts import Child
from agentrl.sandbox.surely import surely
from tests.processes import children, left_since
from tests.sandbox.conftest import opened
from tests.sandbox.test_deaths import server_of


async def test_workers_that_do_not_end_by_themselves_end_together_and_hold_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are stopped and are given time to end until they are let go on; cancelling leaves none of them."""
    monkeypatch.setattr("agentrl.sandbox.starts._CLEARING_S", 600.0)
    before = children()
    pool = await SandboxPool(tier="landlock", workers=3).__aenter__()
    servers = [psutil.Process(worker.pid) for worker in pool.workers]
    for server in servers:
        server.suspend()
    closing = asyncio.create_task(pool.__aexit__(None, None, None))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(worker.alive for worker in pool.workers)  # all have been told
    assert all(server.is_running() for server in servers)
    closing.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    for server in servers:
        server.resume()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert left_since(before, within=0) == []
    assert glob.glob(f"{tempfile.gettempdir()}/sandbox-runner-{os.getpid()}-*") == []


async def test_a_worker_that_never_ends_by_itself_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.sandbox.starts._CLEARING_S", 0.1)
    before = children()
    async with SandboxPool(tier="landlock", workers=1) as pool:
        psutil.Process(pool.workers[0].pid).suspend()
    assert left_since(before, within=0) == []


async def test_cancelling_ends_a_wait_that_must_not_be_cut_short_once_it_is_over() -> None:
    over = asyncio.Event()

    async def work() -> int:
        await over.wait()
        return 3

    waiting = asyncio.create_task(surely(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    over.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await surely(work()) == 3


@pytest.mark.parametrize("kind", ["run", "call"])
def test_a_run_whose_worker_died_before_it_began_is_begun_on_another(pool: SyncSandboxPool, kind: str) -> None:
    assert pool.run("1").ok
    server = server_of(pool)
    server.suspend()  # the order stays in its socket

    async def begun() -> tuple[str, object]:
        work = pool.pool.run("print(5)") if kind == "run" else pool.pool.call("def f(): return 5", "f")
        task = asyncio.ensure_future(work)
        while not pool.pool._lives:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        os.kill(server.pid, signal.SIGKILL)
        result = await task
        return ("ok", result.stdout) if kind == "run" and result.ok else ("ok" if result.ok else str(result), "")

    assert pool.wait_for(begun())[0] == "ok"


def test_a_program_that_may_have_begun_is_not_begun_again(pool: SyncSandboxPool) -> None:
    """It has printed, so it has."""

    async def killed() -> tuple[str, str]:
        task = asyncio.ensure_future(pool.pool.run("import time\nprint('begun', flush=True)\ntime.sleep(60)"))
        while not any(live.stdout._size for live in pool.pool._lives):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        os.kill(server_of(pool).pid, signal.SIGKILL)
        result = await task
        return result.status, result.stdout

    assert pool.wait_for(killed()) == ("infra_error", "begun\n")


@pytest.mark.parametrize(("deaths", "status"), [(2, "ok"), (3, "infra_error")])
def test_a_new_worker_that_dies_while_starting_is_not_the_last_one(
    deaths: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pool in opened("landlock"):
        left = [deaths]
        spawn = Child._spawn

        def dying(child: Child, left: list[int] = left, spawn: Callable[[Child], None] = spawn) -> None:
            spawn(child)
            if left[0]:
                left[0] -= 1
                child._process.kill()

        psutil.Process(pool.pool.workers[0].pid).kill()
        monkeypatch.setattr(Child, "_spawn", dying)
        assert pool.run("print(1)").status == status
        monkeypatch.undo()
        assert pool.run("print(1)").ok


async def test_a_pool_that_is_closed_begins_nothing_again() -> None:
    async with SandboxPool(tier="landlock", workers=1) as pool:
        pass
    with pytest.raises(SandboxError, match="not open"):
        await pool.finished(pool.order("program", pool.limits), pool.limits, b"")
