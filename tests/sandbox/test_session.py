"""Sessions: state that stays, cells that fail, hang, flood or leave."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from agentrl.sandbox import SessionLost, SyncSandboxPool
from tests.processes import children, left_since
from tests.sandbox.attack import LIMITS


def test_state_stays_and_the_last_expression_is_shown(pool: SyncSandboxPool) -> None:
    with pool.session(files={"data.txt": "7"}) as session:
        assert session.run("x = int(open('data.txt').read())\nprint('read')").stdout == "read\n"
        assert session.run("x * 6").stdout == "42\n"
        assert session.run("x = None\nx").stdout == ""
        assert session.run("def f():\n    return 'text'\nf()").stdout == "'text'\n"


def test_an_error_is_shown_without_the_harness_and_the_session_goes_on(pool: SyncSandboxPool) -> None:
    with pool.session() as session:
        session.run("x = 1")
        result = session.run("def f():\n    1 / 0\nf()")
        assert (result.status, result.error, result.lost) == ("error", "ZeroDivisionError", False)
        assert result.stderr.splitlines()[1:3] == ['  File "<cell 2>", line 3, in <module>', "    f()"]
        assert session.run("f(").error == "SyntaxError"
        assert session.run("x").stdout == "1\n"


def test_a_cell_that_hangs_is_interrupted_and_the_session_goes_on(
    pool: SyncSandboxPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrl.sandbox.session._AFTER_INTERRUPT_S", 60.0)  # however busy the machine is
    with pool.session() as session:
        session.run("x = 5")
        result = session.run("while True: pass", wall_s=0.3)
        assert (result.status, result.lost) == ("timeout", False)
        assert session.run("x").stdout == "5\n"


def test_a_cell_that_ignores_the_interrupt_is_killed(pool: SyncSandboxPool) -> None:
    before = children()
    with pool.session() as session:
        code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
        result = session.run(code, wall_s=0.2)
        assert (result.status, result.lost) == ("timeout", True)
        with pytest.raises(SessionLost, match="has ended"):
            session.run("1")
    assert left_since(before) == []


@pytest.mark.parametrize(
    ("cell", "status"),
    [
        ("exit(3)", "error"),
        ("import os\nos._exit(0)", "error"),
        ("import os\nos.abort()", "signal"),
        ("while True: print('x' * 9999)", "output_limit"),
        ("import os\nos.write(3, b'nonsense that is no answer')", "error"),
        ("import os\nos.write(3, (2**31).to_bytes(4, 'big'))\nimport time\ntime.sleep(60)", "error"),
        ("import os\nos.close(3)", "error"),
        ("import os\nos.write(3, b'\\0\\0\\0\\x0e{\"ending\": []}')\nimport time\ntime.sleep(9)", "error"),
        ("import os\nos.write(3, b'\\0\\0\\0\\x02[]')\nimport time\ntime.sleep(9)", "error"),
        ("class E:\n    def __str__(self): raise SystemExit(0)\nraise SystemExit(E())", "error"),
    ],
)
def test_a_cell_that_ends_the_session(pool: SyncSandboxPool, cell: str, status: str) -> None:
    before = children()
    with pool.session() as session:
        session.run("1")
        result = session.run(cell, wall_s=8)
        assert (result.status, result.lost) == (status, True), result
        with pytest.raises(SessionLost):
            session.run("1")
    assert left_since(before) == []


def test_a_session_without_streams_goes_on(pool: SyncSandboxPool) -> None:
    with pool.session() as session:
        assert session.run("import sys\nkept = sys.stdout\nsys.stdout = None").ok
        assert session.run("sys.stdout = kept\n5").stdout == "5\n"


def test_output_is_capped_for_each_cell(pool: SyncSandboxPool) -> None:
    with pool.session(limits=dataclasses.replace(LIMITS, output_bytes=1000)) as session:
        for _ in range(3):
            assert session.run("print('x' * 900)").ok


def test_an_idle_session_ends(pool: SyncSandboxPool) -> None:
    before = children()
    with pool.session(idle_s=1.5) as session:
        assert session.run("1").ok
        with pytest.raises(SessionLost, match="idle"):  # noqa: PT012  one of them, but for a busy machine the first
            for _ in range(20):
                time.sleep(2)
                session.run("1")
        assert left_since(before) == []


def test_memory_of_a_session_is_limited(pool: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, memory_bytes=100 << 20)
    with pool.session(limits=limits) as session:
        result = session.run("x = b'x' * (200 << 20)\nimport time\ntime.sleep(60)", wall_s=50)
        assert (result.status, result.lost) == ("memory", True)


def test_a_cancelled_cell_leaves_its_descriptors_to_the_next_run(pool: SyncSandboxPool) -> None:
    async def cut_off_and_begun_anew() -> str:
        async with pool.pool.session() as session:
            assert (await session.run("1")).ok
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await session.run("import time; time.sleep(60)")
            # at once: its channel gets the number of the socket that has just been closed
            return (await asyncio.wait_for(pool.pool.run("print(42)"), 60)).stdout

    assert pool.wait_for(cut_off_and_begun_anew()) == "42\n"


def test_a_cell_that_is_cancelled_before_the_walls_stand_leaves_no_task(pool: SyncSandboxPool) -> None:
    async def left() -> set[asyncio.Task[object]]:
        before = asyncio.all_tasks()
        async with pool.pool.session() as session:
            cell = asyncio.create_task(session.run("1"))
            await asyncio.sleep(0)
            cell.cancel()
            await asyncio.wait({cell})
        for _ in range(600):
            if asyncio.all_tasks() - before:
                await asyncio.sleep(0.1)
        return asyncio.all_tasks() - before

    assert pool.wait_for(left()) == set()
