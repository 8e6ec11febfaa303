"""The keeper of a session and its forks: what the session's code can do to it, and what comes of that."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from agentrl.sandbox import SandboxError, SandboxPool, Session, SyncSandboxPool
from agentrl.sandbox.jail import family, server
from tests.sandbox.attack import LIMITS

ASKS_FOR_EVER = """
import ctypes, os
if os.fork() == 0:
    libc = ctypes.CDLL(None)
    while True:
        libc.unshare(0x20000)
"""


async def says(session: Session, cell: str) -> str:
    result = await session.run(cell, wall_s=60)
    assert result.ok, result
    return result.stdout.strip()


def test_who_asks_for_ever_does_not_keep_it_from_others(zygote: SyncSandboxPool) -> None:
    """An order and a question are heard of at the same moment, and the question may come first."""

    async def play(pool: SandboxPool) -> None:
        async with pool.session() as one, await one.fork() as two:
            await says(two, ASKS_FOR_EVER)
            for _ in range(10):
                async with await one.fork() as three:
                    assert await says(three, "6 * 7") == "42"

    zygote.wait_for(play(zygote.pool))


def test_a_session_that_takes_no_descriptors_is_not_forked_and_goes_on(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session() as one:
            await says(one, "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))")
            for _ in range(8):  # its process must not go on either, as a second one in the same conversation
                with pytest.raises(SandboxError, match="could not be forked"):
                    await one.fork()
                assert await says(one, "6 * 7") == "42"

    zygote.wait_for(play(zygote.pool))


def test_it_rests_when_the_session_has_ended_by_itself(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session() as one:
            await says(one, "import os, threading; threading.Timer(0.05, os._exit, [0]).start()")
            assert one._live is not None
            await asyncio.wait_for(one._live.done, 60)
            below = psutil.Process(pool.workers[0].pid).children(recursive=True)
            keeper = next(each for each in below if not each.children())
            used, last = 0.0, -1.0
            for _ in range(60):
                if used == last:
                    return
                await asyncio.sleep(0.5)
                last, used = used, sum(keeper.cpu_times()[:2])
            pytest.fail("it works although nobody is there")

    zygote.wait_for(play(zygote.pool))


def test_folders_that_nobody_made_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    walls: Any = None
    monkeypatch.setattr(family, "_furnish", killed)
    assert "was killed" in family.Family.furnish(walls, walls, 0, -1)
    monkeypatch.setattr(family, "_furnish", lambda *_: None)
    assert family.Family.furnish(walls, walls, 0, -1) == ""


def test_a_signal_to_somebody_who_is_gone_is_no_fault() -> None:
    gone: Any = SimpleNamespace(pid=1 << 30)
    server._signal(gone, signal.SIGKILL)


def test_a_session_without_room_for_a_process_is_not_forked_and_goes_on_itself(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session(limits=dataclasses.replace(LIMITS, processes=2)) as one:
            before = await says(one, "import os; os.getpid()")
            for _ in range(3):
                with pytest.raises(SandboxError, match="as many processes as it may"):
                    await one.fork()
                assert await says(one, "os.getpid()") == before

    zygote.wait_for(play(zygote.pool))


def test_a_folder_that_cannot_be_copied_is_a_refusal_whatever_its_files_are_called(zygote: SyncSandboxPool) -> None:
    """What is told of it is cut to a length, perhaps in the middle of a letter."""

    async def play(pool: SandboxPool) -> None:
        async with pool.session() as one:
            for name in ("a" + "é" * 126, "a" + "€" * 84, "aa" + "€" * 84):
                await says(one, f"import os; open({name!r}, 'w').close(); os.chmod({name!r}, 0)")
                with pytest.raises(SandboxError, match=r"Permission|Error"):
                    await one.fork()
                await says(one, f"os.unlink({name!r})")
            async with await one.fork() as two:
                assert await says(two, "6 * 7") == "42"

    zygote.wait_for(play(zygote.pool))
