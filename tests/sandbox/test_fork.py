"""Forks of sessions: each goes on by itself, whatever becomes of the others, and nobody gets out that way."""

from __future__ import annotations

import asyncio
import dataclasses
import glob
import os
import subprocess
import sys

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrl.sandbox import SandboxError, SandboxPool, Session, SessionLost, SyncSandboxPool
from tests.processes import children, left_since, still_running
from tests.sandbox.asking import ASKING
from tests.sandbox.attack import LIMITS, REPOSITORY, Attack
from tests.sandbox.conftest import opened
from tests.sandbox.reaching import REACHING
from tests.sandbox.serving import until

EACH = "open('f', 'a').write({word!r})\nopen('/tmp/g', 'a').write({word!r})\nopen('/dev/shm/h', 'a').write({word!r})"
SHOW = "said, open('/work/f').read(), open('/tmp/g').read(), open('/dev/shm/h').read()"


async def says(session: Session, cell: str, wall_s: float = 10) -> str:
    result = await session.run(cell, wall_s=wall_s)
    assert result.ok, result
    return result.stdout.strip()


async def write(session: Session, word: str) -> None:
    await says(session, f"said += {word!r}\n{EACH.format(word=word)}")


steps = st.lists(st.tuples(st.sampled_from(["fork", "write", "close"]), st.integers(0, 5)), max_size=8)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_any_tree_of_forks_is_as_many_sessions_with_their_own_past(
    zygote: SyncSandboxPool, plan: list[tuple[str, int]]
) -> None:
    """The slow twin is a list of strings: a fork copies one, a word goes to one of them."""

    async def play(pool: SandboxPool) -> None:
        root = await pool.session().__aenter__()
        await says(root, f"said = ''\n{EACH.format(word='')}")
        held = [(root, "")]
        try:
            for number, (step, whom) in enumerate(plan):
                session, past = held[whom % len(held)]
                if step == "fork":
                    held.append((await session.fork(), past))
                elif step == "write":
                    await write(session, f"{number} ")
                    held[whom % len(held)] = session, f"{past}{number} "
                elif len(held) > 1:
                    held.remove((session, past))
                    session.close()
            for session, past in held:
                assert await says(session, SHOW) == repr((past,) * 4)
        finally:
            for session, _ in held:
                session.close()

    before = children()
    zygote.wait_for(play(zygote.pool))
    assert left_since(before) == []


def test_objects_functions_and_the_folder_go_on_in_both(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session(files={"d/in.txt": "7"}) as one:
            await says(one, "import os\nclass Box: pass\nbox = Box()\nbox.all = []\ndef put(x): box.all.append(x)")
            await says(one, "os.chdir('d')\nos.symlink('in.txt', 'link')\nos.mkfifo('pipe')\nos.chmod('in.txt', 0o640)")
            async with await one.fork() as two:
                await says(one, "put(1)")
                await says(two, "put(2)")
                assert [await says(each, "box.all") for each in (one, two)] == ["[1]", "[2]"]
                shown = "os.getcwd(), sorted(os.listdir()), open('link').read(), oct(os.stat('in.txt').st_mode)"
                assert await says(two, shown) == "('/work/d', ['in.txt', 'link'], '7', '0o100640')"
                await says(two, "open('in.txt', 'w').write('8')")
                assert await says(one, "open('/work/d/in.txt').read()") == "'7'"
                failed = await two.run("def f():\n    1 / 0\nf()")
                assert "<cell 7>" in failed.stderr  # counted on from where it was forked
                assert "1 / 0" in failed.stderr

    zygote.wait_for(play(zygote.pool))


def test_random_streams_differ_after_the_fork() -> None:
    pytest.importorskip("numpy")

    async def play(pool: SandboxPool) -> set[str]:
        async with pool.session() as one:
            await says(one, "import random, numpy\nrandom.seed(1)\nnumpy.random.seed(1)")
            async with await one.fork() as two, await one.fork() as three:
                return {await says(each, "random.random(), numpy.random.rand()") for each in (one, two, three)}

    with SyncSandboxPool(tier="zygote", workers=1, preload=["numpy"], limits=LIMITS) as pool:
        streams = [eval(each) for each in pool.wait_for(play(pool.pool))]
    assert len(streams) == 3
    assert len({first for first, _ in streams}) == 3
    assert len({second for _, second in streams}) == 3


def test_forks_of_forks_outlive_whom_they_come_from(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        one = await pool.session().__aenter__()
        await says(one, "deep = 1")
        line = [one]
        for deep in (2, 3, 4):
            line.append(await line[-1].fork())
            await says(line[-1], f"deep = {deep}")
        lost = await one.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
        assert (lost.status, lost.lost) == ("signal", True)
        line[1].close()
        assert [await says(each, "deep") for each in line[2:]] == ["3", "4"]
        odd = await line[2].run("import os, time\nos.write(3, b'no answer at all')\ntime.sleep(1000)")
        assert (odd.status, odd.error, odd.lost) == ("error", "its answer made no sense", True)
        async with await line[3].fork() as last:
            line[3].close()
            assert await says(last, "deep") == "4"
        assert pool.metrics().sessions == 0

    before = children()
    zygote.wait_for(play(zygote.pool))
    assert left_since(before) == []


DAEMONS = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
    os.wait()
"""


def test_the_processes_of_one_end_with_it_and_with_nobody_else(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        one = await pool.session().__aenter__()
        two = await one.fork()
        idle = children()
        await says(one, DAEMONS)
        of_one = children() - idle
        await says(two, DAEMONS)
        of_two = children() - idle - of_one
        assert (len(of_one), len(of_two)) == (3, 3)
        one.close()
        assert await asyncio.to_thread(left_since, idle | of_two) == []
        assert all(psutil.pid_exists(pid) for pid in of_two)
        assert await says(two, "6 * 7") == "42"
        two.close()

    before = children()
    zygote.wait_for(play(zygote.pool))
    assert left_since(before) == []


def test_each_has_its_own_limits(zygote: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, memory_bytes=100 << 20, disk_bytes=8 << 20)

    async def play(pool: SandboxPool) -> None:
        async with pool.session(limits=limits) as one, await one.fork() as two, await one.fork() as three:
            for each in (one, two, three):
                await says(each, "kept = b'x' * (60 << 20)")  # together more than one may
            much = await two.run("more = b'y' * (90 << 20)\nimport time\ntime.sleep(30)", wall_s=30)
            assert (much.status, much.error, much.lost) == ("memory", "memory limit of the whole run", True)
            full = await three.run("open('f', 'wb').write(bytes(9 << 20))")
            assert full.error == "OSError"
            assert await says(one, "len(kept)") == str(60 << 20)
            assert await says(three, "len(kept)") == str(60 << 20)

    zygote.wait_for(play(zygote.pool))


def test_what_cannot_be_forked_says_so(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        one = await pool.session().__aenter__()
        await says(one, "x = 1")
        running = asyncio.create_task(one.run("while True: pass", wall_s=60))
        await until(lambda: pool.metrics().cells_running == 1, within_s=60)
        with pytest.raises(SandboxError, match="fork it between cells"):
            await one.fork()
        assert one._live is not None
        while not running.done():
            one._live.interrupt()
            await asyncio.sleep(0.1)
        assert (await running).error == "KeyboardInterrupt"
        assert await says(one, "x") == "1"
        lost = await one.run("exit()")
        assert lost.lost
        with pytest.raises(SessionLost, match="has ended"):
            await one.fork()
        async with pool.session() as two:
            pass
        with pytest.raises(SessionLost, match="closed"):
            await two.fork()

    zygote.wait_for(play(zygote.pool))


def test_a_tier_without_processes_refuses_it() -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session() as one:
            await says(one, "x = 1")
            with pytest.raises(SandboxError, match="tier 'landlock' cannot be forked"):
                await one.fork()
            assert await says(one, "x") == "1"

    for pool in opened("landlock"):
        pool.wait_for(play(pool.pool))


def test_forks_at_once(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> list[str]:
        async with pool.session() as one:
            await says(one, "x = 5")
            branches = await asyncio.gather(*(one.fork() for _ in range(4)))
            more = await asyncio.gather(*(each.fork() for each in branches))
            shown = await asyncio.gather(*(says(each, "x") for each in (one, *branches, *more)))
            for each in (*branches, *more):
                each.close()
        return shown

    before = children()
    assert zygote.wait_for(play(zygote.pool)) == ["5"] * 9
    assert left_since(before) == []


def test_a_cancelled_fork_leaves_nothing(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        for turns in (0, 1, 2, 3, 5, 8):
            async with pool.session() as one:
                await says(one, "1")
                fork = asyncio.create_task(one.fork())
                for _ in range(turns):
                    await asyncio.sleep(0)
                fork.cancel()
                await asyncio.wait({fork})
        assert pool.metrics().sessions == 0

    before = children()
    zygote.wait_for(play(zygote.pool))
    assert left_since(before) == []


def test_many_forks_leave_no_descriptor(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        for _ in range(10):
            async with pool.session() as one, await one.fork() as two:
                await says(two, "1")

    zygote.wait_for(play(zygote.pool))
    before, opened_before = children(), len(os.listdir("/proc/self/fd"))
    zygote.wait_for(play(zygote.pool))
    assert left_since(before) == []
    assert len(os.listdir("/proc/self/fd")) <= opened_before
    assert glob.glob("/dev/shm/sbx*") == []


ASKS = """
import ctypes, os
call = ctypes.CDLL(None, use_errno=True).syscall
def ask(number, *words):
    return call(number, *words), ctypes.get_errno()
"""


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize(
    ("why", "cell", "answer"),
    [
        ("new namespaces", "ask(272, 0x10020000)", "(-1, 1)"),
        ("a branch's second call", "ask(272, 0)", "(-1, 1)"),
        ("another namespace", "ask(308, os.open('/proc/self/ns/mnt', 0), 0)", "(-1, 1)"),
        ("mounts", "ask(165, b'x', b'/work', b'tmpfs', 0, 0)", "(-1, 1)"),
        ("the keeper's memory", "os.access('/proc/1/mem', os.W_OK), os.path.exists('/proc/1/fd/0')", "(False, False)"),
        ("the keeper's death", "for n in (2, 9, 15, 19):\n    try: os.kill(1, n)\n    except OSError: pass\n7", "7"),
        ("hiding from it", "ask(157, 4, 0, 0, 0, 0)", "(-1, 1)"),
        ("descriptors", "sorted(map(int, os.listdir('/proc/self/fd')))[:4]", "[0, 1, 2, 3]"),
        ("its descriptors", "len(os.listdir('/proc/self/fd'))", "5"),
        ("the system's files", "os.access('/usr', os.W_OK), os.access('/etc/passwd', os.W_OK)", "(False, False)"),
        ("who it is", "os.getuid(), os.getgid()", "(1000, 1000)"),
        (
            "rights",
            "[l.split()[1] for l in open('/proc/self/status') if l[:6] in ('CapPrm', 'CapEff', 'CapAmb', 'CapInh')]",
            "['0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000']",
        ),
    ],
)
def test_nobody_gets_out(zygote: SyncSandboxPool, forked: bool, why: str, cell: str, answer: str) -> None:
    async def play(pool: SandboxPool) -> str:
        async with pool.session() as one:
            if not forked:
                return await says(one, ASKS + cell)
            async with await one.fork() as two:
                return await says(two, ASKS + cell)

    assert zygote.wait_for(play(zygote.pool)) == answer


LIARS = {
    "a fork that keeps its rights": "branch.sc.give_up_rights = lambda: None",
    "one that asks for more": "branch.APART |= 0x40000000",
    "one that is not alone": "up = branch.sc.give_up_rights\nbranch.sc.give_up_rights = lambda: (up(), os.fork())",
    "one that never asks": "branch.sc.unshare = lambda flags: None",
    "one that says nothing": "branch.os.fork = lambda: 0",
    "one that dies": "branch.sc.unshare = lambda flags: os._exit(0)",
}


SLOW = ("one that never asks", "one that dies")  # they are waited for


@pytest.mark.parametrize("how", [pytest.param(how, marks=pytest.mark.slow) if how in SLOW else how for how in LIARS])
def test_a_session_that_cheats_at_its_fork_gains_nothing(zygote: SyncSandboxPool, how: str) -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session() as one:
            await says(one, f"import os, sys\nbranch = sys.modules['sandbox_jail.branch']\n{LIARS[how]}")
            with pytest.raises(SandboxError):
                await one.fork()
        assert (await pool.run("print(1)")).ok

    before = children()
    zygote.wait_for(play(zygote.pool))
    assert left_since(before) == []


# A branch sees the others of its family and its keeper, may end the others, and has a conversation on a descriptor.
OF_THE_FAMILY = {"processes", "signals", "descriptors", "priority_of_all_of_a_user"}
HOSTILE = [each for each in [*REACHING, *ASKING] if each.name not in OF_THE_FAMILY]


@pytest.mark.usefixtures("bait")
@pytest.mark.parametrize("attack", [pytest.param(each, id=each.name) for each in HOSTILE])
def test_no_branch_reaches_what_no_run_reaches(zygote: SyncSandboxPool, attack: Attack) -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session() as one:
            await says(one, "x = 1")
            async with await one.fork() as two:
                result = await two.run(attack.code)
            assert "ESCAPED" not in result.stdout
            assert not any(word in result.stdout for word in attack.expect.get("no_stdout", ()))
            assert await says(one, "x") == "1"

    before = children()
    zygote.wait_for(play(zygote.pool))
    assert left_since(before) == []


def test_a_killed_keeper_is_a_failure_of_the_sandbox_and_leaves_nothing(zygote: SyncSandboxPool) -> None:
    async def play(pool: SandboxPool) -> None:
        assert (await pool.run("1")).ok
        idle = children()
        async with pool.session() as one, await one.fork() as two:
            await says(one, "1")
            server = psutil.Process(pool.workers[0].pid).children()[0]
            keepers = [each for each in server.children() if each.pid not in idle]
            assert len(keepers) == 1
            running = asyncio.create_task(one.run("import time\ntime.sleep(1000)", wall_s=1000))
            await until(lambda: pool.metrics().cells_running == 1, within_s=60)
            keepers[0].kill()
            lost = await running
            assert (lost.status, lost.lost) == ("infra_error", True)
            assert (await two.run("1")).status == "infra_error"
        assert await asyncio.to_thread(left_since, idle) == []
        assert (await pool.run("print(1)")).ok

    zygote.wait_for(play(zygote.pool))


def test_a_killed_caller_leaves_no_fork() -> None:
    script = """
import asyncio
from agentrl.sandbox import SandboxPool
async def main():
    async with SandboxPool(tier="zygote", workers=1) as pool, pool.session() as one, await one.fork() as two:
        await two.run("import os\\nif os.fork() == 0:\\n    os.setsid()\\n    import time\\n    time.sleep(1000)")
        print("running", flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    caller = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    try:
        assert caller.stdout is not None
        if caller.stdout.readline() != b"running\n":
            pytest.skip("no zygote here")
        below = psutil.Process(caller.pid).children(recursive=True)
        assert len(below) >= 6  # who started, the server, the keeper, two sessions, and what one of them started
        caller.kill()
        assert still_running(below) == []
    finally:
        caller.kill()
        caller.wait()
        caller.stdout.close()
