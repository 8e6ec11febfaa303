"""Walls that another program builds: whose child a run is, who says how it ended, and runs that end as they begin."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from agentrl.sandbox import Limits, SandboxError, SyncSandboxPool
from agentrl.sandbox.starts import ENVIRONMENT
from tests.processes import children, left_since
from tests.sandbox.conftest import opened

SLEEP = "import time\ntime.sleep(60)"


@pytest.fixture(scope="module")
def pool() -> Iterator[SyncSandboxPool]:
    yield from opened("bwrap")


def test_an_exit_code_is_told_from_a_signal(pool: SyncSandboxPool) -> None:
    """`bwrap` itself says 139 in both cases."""
    left, died = pool.run("exit(139)"), pool.run("import os\nos.abort()")
    assert (left.status, left.exit_code, left.signal) == ("error", 139, None)
    assert (died.status, died.exit_code) == ("signal", None)


def test_a_run_is_a_child_of_the_worker_and_bwrap_is_gone(pool: SyncSandboxPool) -> None:
    async def while_it_runs() -> list[list[str]]:
        async with pool.pool.session() as session:
            assert (await session.run("1")).ok
            return [child.cmdline() for child in psutil.Process(pool.pool.workers[0].pid).children(recursive=True)]

    found = pool.wait_for(while_it_runs())
    assert len(found) == 1
    assert "sandbox_jail" in " ".join(found[0])
    assert Path(found[0][0]).name.startswith("python")


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08])
def test_runs_that_are_cancelled_while_they_begin_leave_nothing(pool: SyncSandboxPool, after_s: float) -> None:
    before, server = children(), psutil.Process(pool.pool.workers[0].pid)
    descriptors = server.num_fds()

    async def cancelled() -> None:
        runs = [asyncio.create_task(pool.pool.run(SLEEP)) for _ in range(4)]
        await asyncio.sleep(after_s)
        for run in runs:
            run.cancel()
        await asyncio.wait(runs)

    pool.wait_for(cancelled())
    assert left_since(before) == []
    assert pool.run("print(1)").ok
    deadline = time.monotonic() + 10
    while (server.children() or server.num_fds() > descriptors) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.children() == []  # no zombies either
    assert server.num_fds() <= descriptors


def test_a_bwrap_that_is_killed_while_it_begins_is_no_failure_of_the_program(pool: SyncSandboxPool) -> None:
    before = children()

    async def killed() -> str:
        run = asyncio.create_task(pool.pool.run(SLEEP))
        while not (begun := children() - before):  # noqa: ASYNC110
            await asyncio.sleep(0)
        for pid in begun:
            with suppress(ProcessLookupError):  # what builds the walls ends by itself
                os.kill(pid, 9)
        result = await run
        return result.status

    assert pool.wait_for(killed()) in ("infra_error", "signal")  # it may have been the run itself by then
    assert left_since(before) == []
    assert pool.run("print(1)").ok


def test_disk_is_limited_as_a_sum_over_folders(pool: SyncSandboxPool) -> None:
    code = "for f in ('/work/a', '/tmp/a', '/dev/shm/a'):\n    open(f, 'wb').write(bytes(6 << 20))\n" + SLEEP
    result = pool.run(code, limits=Limits(disk_bytes=10 << 20))
    assert (result.status, result.error) == ("error", "disk limit of the whole run")


def test_files_are_counted(pool: SyncSandboxPool) -> None:
    code = "for n in range(60): open(f'/tmp/{n}', 'w').close()\n" + SLEEP
    assert pool.run(code, limits=Limits(files=50)).error == "disk limit of the whole run"
    assert pool.run(code, limits=Limits(files=100, wall_s=0.5)).status == "timeout"
    given = {f"{n}": "" for n in range(60)}
    assert pool.run(SLEEP, files=given, limits=Limits(files=50)).error == "disk limit of the whole run"


def test_nothing_of_the_worker_is_in_a_run(pool: SyncSandboxPool) -> None:
    code = "import os\nprint(os.listdir('/proc/self/fd'), os.listdir('/tmp'), os.access('/', os.W_OK))"
    assert pool.run(code).stdout == "['0', '1', '2', '3'] [] False\n"  # 3 is the folder that is listed
    names = pool.run("import os\nprint(*os.environ)").stdout.split()
    assert set(names) <= {*ENVIRONMENT, "PWD"}


def test_preloaded_modules_are_there_and_their_loading_is_not_the_programs_time() -> None:
    warm = "import colorsys, time\ntime.sleep(0.7)\ncolorsys.warmed = 1"
    for pool in opened("bwrap", preload=["colorsys"], warm=warm):
        began = time.monotonic()
        result = pool.run("import sys\nprint(sys.modules['colorsys'].warmed)")
        assert result.stdout == "1\n"
        assert result.wall_s <= time.monotonic() - began - 0.7


def test_a_module_that_cannot_be_preloaded_is_named(pool: SyncSandboxPool) -> None:
    with (
        pytest.raises(SandboxError, match="no_such_module"),
        SyncSandboxPool(tier=pool.tier, workers=1, preload=["no_such_module"]),
    ):
        pass
