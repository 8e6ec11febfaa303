"""Sessions on a server: state that stays, and everything that can end it, on either side."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from agentrl.sandbox import HttpPool, Limits, SandboxError, SessionLost
from agentrl.sandbox.remote.http import SWITCHING
from agentrl.sandbox.remote.session import frame
from tests.processes import still_running
from tests.sandbox.serving import Served, post, serving, until
from tests.sandbox.test_http_pool import pool_of, pretending, saying


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("--sessions", "3") as server:
        yield server


async def nothing_runs(server: Served) -> None:
    await until(lambda: len(server.below()) == server.idle)


async def test_state_stays_and_cells_end_as_at_home(served: Served) -> None:
    async with served.pool() as pool, pool.session(files={"f": b"6"}) as session:
        assert (await session.run("x = int(open('f').read())\nprint('é')")).stdout == "é\n"
        assert (await session.run("x * 7")).stdout == "42\n"
        failed = await session.run("1 / 0")
        assert (failed.status, failed.error, failed.tier) == ("error", "ZeroDivisionError", "zygote")
        assert (await session.run("import time; time.sleep(1.3); x")).stdout == "6\n"  # with a beat between
        left = await session.run("exit()")
        assert (left.status, left.lost) == ("error", True)
        with pytest.raises(SessionLost, match="has ended"):
            await session.run("1")
    await nothing_runs(served)


async def test_a_cell_that_hangs_is_interrupted(served: Served) -> None:
    async with served.pool() as pool:
        for _ in range(5):  # it has a second to end, which a busy machine may take from it
            async with pool.session() as session:
                assert (await session.run("x = 6")).ok
                late = await session.run("while True: pass", wall_s=0.3)
                assert late.status == "timeout"
                if not late.lost:
                    assert (await session.run("x")).stdout == "6\n"
                    return
    pytest.fail("five cells did not end when interrupted")


async def test_cells_of_one_session_run_one_after_another(served: Served) -> None:
    async with served.pool() as pool, pool.session() as session:
        await session.run("n = 0")
        shown = await asyncio.gather(*(session.run("n += 1\nn") for _ in range(9)))
    assert [each.stdout for each in shown] == [f"{n}\n" for n in range(1, 10)]


async def test_it_ends_with_its_client(served: Served) -> None:
    async with served.pool() as pool:
        session = await pool.session().__aenter__()
        await session.run("1")
        running = asyncio.create_task(session.run("import time; time.sleep(60)", wall_s=100))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await nothing_runs(served)
        with pytest.raises(SessionLost, match="closed"):
            await session.run("1")
        async with pool.session() as other:
            await other.run("1")
        await nothing_runs(served)
        assert [server.under_way for server in pool.servers] == [0]


async def test_an_idle_one_ends(served: Served) -> None:
    async with served.pool() as pool, pool.session(idle_s=1.5) as session:
        assert (await session.run("1")).ok
        await nothing_runs(served)
        with pytest.raises(SessionLost, match=r"idle for 1\.5 s"):
            await session.run("1")


async def test_there_are_as_many_as_the_server_allows(served: Served) -> None:
    async with served.pool() as pool:
        sessions = [await pool.session().__aenter__() for _ in range(3)]
        async with served.pool(patience_s=2.0) as hasty:
            with pytest.raises(SandboxError, match="429: 3 sessions are open already"):
                await hasty.session().__aenter__()
        waiting = asyncio.create_task(pool.session().__aenter__())
        await asyncio.sleep(0.1)
        sessions.pop().close()
        sessions.append(await waiting)
        assert (await sessions[-1].run("7")).stdout == "7\n"
        for session in sessions:
            session.close()


async def test_what_the_server_refuses(served: Served) -> None:
    assert (await served.ask(post(b"{}", path="/v1/session")))[0] == 426
    assert (await served.ask(post(b"{}", path="/v1/session", upgrade="sandbox-session")))[0] == 400
    async with served.pool() as pool:
        with pytest.raises(SandboxError, match="wall_s is 1000"):
            await pool.session(limits=Limits(wall_s=1000)).__aenter__()
        async with pool.session() as session:
            with pytest.raises(SandboxError, match="this server allows 120"):
                await session.run("1", wall_s=121)
            assert (await session.run("1")).ok


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
async def test_it_is_lost_with_its_server(number: signal.Signals) -> None:
    with serving("--drain-s", "0.2") as server:
        async with server.pool(silence_s=6.0) as pool, pool.session() as session:
            await session.run("x = 1")
            running = asyncio.create_task(session.run("import time; time.sleep(9)"))
            await asyncio.sleep(0.2)
            below = server.below()
            server.kill(number)
            result = await running
            assert (result.status, result.lost, result.stdout) == ("infra_error", True, "")
            with pytest.raises(SessionLost):
                await session.run("x")
        if number is not signal.SIGSTOP:
            assert still_running(below) == []


@pytest.mark.parametrize(
    "then",
    [b"", b"\0", (2**31).to_bytes(4, "big"), frame({}), frame({"cell": {"status": "ok"}}), b"\0\0\0\1{", b"\0\0\0\0"],
)
async def test_a_server_that_answers_nonsense(then: bytes) -> None:
    async with pretending(saying(SWITCHING + then)) as address, pool_of(address) as pool:
        async with pool.session() as session:
            result = await session.run("1")
        assert (result.status, result.lost) == ("infra_error", True)


async def test_another_server_is_asked_for_it() -> None:
    with serving() as good:
        async with pretending(saying(b"")) as bad, pool_of(bad, good.address) as pool, pool.session() as session:
            assert (await session.run("7")).stdout == "7\n"
    with pytest.raises(SandboxError, match="the pool is not open"):
        await HttpPool([good.address], token="x").session().__aenter__()
