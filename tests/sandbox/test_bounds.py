"""Bounds of a whole pool: who waits, in which order, and that nothing is ever beyond them; and what a pool counts."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.sandbox import Limits, SandboxError, SandboxPool, SessionLost, SyncSandboxPool
from agentrl.sandbox.bounds import Bound, Gate, Place
from agentrl.sandbox.metrics import PHASES, Histogram
from tests.processes import children, left_since
from tests.sandbox.attack import LIMITS
from tests.sandbox.conftest import opened
from tests.sandbox.serving import until

SLEEP = "import time\ntime.sleep(1000)"


def limits(memory: int, processes: int = 1) -> Limits:
    return Limits(memory_bytes=memory, processes=processes)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from(["runs", "sessions"]), st.integers(1, 10), st.integers(1, 5)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("at_once"), st.integers(1, 10)),
    ),
    max_size=30,
)


@given(steps)
def test_nobody_is_beyond_a_bound_and_nobody_who_fits_waits(plan: list[tuple[object, ...]]) -> None:
    async def play() -> None:
        gate = Gate(memory_bytes=10, processes=8)
        bounds = {"runs": gate.bound("runs", 3), "sessions": gate.bound("sessions", None)}
        asked: list[tuple[Bound, Limits, asyncio.Task[Place]]] = []
        inside: list[Place] = []
        for step, *words in plan:
            if step == "enter":
                bound, wanted = bounds[words[0]], limits(words[1], words[2])  # type: ignore[index, arg-type]
                asked.append((bound, wanted, asyncio.create_task(bound.enter(wanted))))
            elif step == "at_once":
                try:
                    inside.append(bounds["sessions"].enter_at_once(limits(words[0])))  # type: ignore[arg-type]
                except SandboxError:
                    assert (
                        sum(each.limits.memory_bytes for each in inside) + words[0] > 10 or gate.used["processes"] == 8
                    )  # type: ignore[operator]
            elif step == "leave" and inside:
                inside.pop(words[0] % len(inside)).leave()  # type: ignore[operator]
            elif step == "cancel" and asked:
                asked.pop(words[0] % len(asked))[2].cancel()  # type: ignore[operator]
            for _ in range(4):
                await asyncio.sleep(0)
            inside += [task.result() for _, _, task in asked if task.done()]
            asked = [each for each in asked if not each[2].done()]
            for name in ("memory_bytes", "processes"):
                assert gate.used[name] == sum(getattr(each.limits, name) for each in inside)
            assert gate.used["memory_bytes"] <= 10
            assert gate.used["processes"] <= 8
            counts = {name: sum(each.bound is bound for each in inside) for name, bound in bounds.items()}
            assert counts == {name: bound.inside for name, bound in bounds.items()}
            assert counts["runs"] <= 3
            first = next((each for each in asked if each[0].free), None)
            assert first is None or not gate.fits(first[1])
        for _, _, task in asked:
            task.cancel()
        await asyncio.gather(*(task for _, _, task in asked), return_exceptions=True)

    asyncio.run(play())


async def test_who_waits_longest_comes_first_though_a_smaller_one_would_fit() -> None:
    gate = Gate(memory_bytes=10)
    bound = gate.bound("runs", None)
    first = await bound.enter(limits(6))
    large = asyncio.create_task(bound.enter(limits(8)))
    small = asyncio.create_task(bound.enter(limits(2)))
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done()
    first.leave()
    await asyncio.wait({large, small})
    assert gate.used["memory_bytes"] == 10


async def test_a_place_that_was_given_to_one_who_is_cancelled_goes_on_to_the_next() -> None:
    bound = Gate().bound("runs", 1)
    first = await bound.enter(limits(1))
    second, third = (asyncio.create_task(bound.enter(limits(1))) for _ in range(2))
    await asyncio.sleep(0)
    first.leave()  # gives it to the second, which does not know it yet
    second.cancel()
    (await third).leave()
    assert bound.inside == 0


@pytest.mark.parametrize("wrong", [{"sessions": 0}, {"memory_bytes": -1}, {"processes": 0}])
def test_a_bound_is_above_zero(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        SandboxPool(**wrong)  # type: ignore[arg-type]


def test_what_the_whole_pool_has_not_is_refused_at_once() -> None:
    async def play(pool: SandboxPool) -> None:
        much = dataclasses.replace(LIMITS, memory_bytes=2 << 30)
        for wanted in (
            pool.run("1", limits=much),
            pool.call("", "f", limits=much),
            pool.session(limits=much).__aenter__(),
        ):
            with pytest.raises(ValueError, match="and the whole pool has 1073741824"):
                await wanted
        assert (await pool.run("print(1)")).ok

    for pool in opened("zygote", memory_bytes=1 << 30):
        pool.wait_for(play(pool.pool))


def test_runs_wait_for_memory_that_sessions_hold() -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session() as session:
            with pytest.raises(SandboxError, match="no place for another: 1 sessions; in use: memory_bytes 1048576000"):
                await session.fork()
            assert (await session.run("1")).ok  # which is as good as before
            waiting = asyncio.create_task(pool.run("print(1)"))
            await until(lambda: pool.metrics().waiting == 1, within_s=60)
            assert pool.metrics().memory_bytes == LIMITS.memory_bytes
        assert (await waiting).ok
        assert pool.metrics().memory_bytes == 0

    for pool in opened("zygote", memory_bytes=LIMITS.memory_bytes):
        pool.wait_for(play(pool.pool))


def test_sessions_have_a_bound_of_their_own() -> None:
    async def play(pool: SandboxPool) -> None:
        async with pool.session() as one, await one.fork() as two:
            waiting = asyncio.create_task(pool.session().__aenter__())
            await until(lambda: pool.metrics().waiting == 1, within_s=60)
            assert (await pool.run("print(1)")).ok
            with pytest.raises(SandboxError, match="no place for another: 2 of 2 sessions"):
                await one.fork()
            two.close()
            three = await waiting
            assert pool.metrics().sessions == 2
            three.close()

    before = children()
    for pool in opened("zygote", sessions=2):
        pool.wait_for(play(pool.pool))
    assert left_since(before) == []


def test_closing_the_pool_ends_the_waiting() -> None:
    async def play() -> None:
        async with SandboxPool(tier="zygote", workers=1, running=1, sessions=1) as pool:
            await pool.session().__aenter__()
            runs = [asyncio.create_task(pool.run(SLEEP)) for _ in range(2)]
            session = asyncio.create_task(pool.session().__aenter__())
            await until(lambda: pool.metrics().waiting == 2, within_s=60)
        assert {(await run).status for run in runs} == {"infra_error"}
        with pytest.raises(SandboxError, match="the pool is not open"):
            await session

    before = children()
    asyncio.run(play())
    assert left_since(before) == []


def test_few_start_at_once() -> None:
    """A flood of sessions: none is refused, and never more than so many build their walls."""

    async def play(pool: SandboxPool) -> list[int]:
        seen = []

        async def one() -> None:
            async with pool.session() as session:
                seen.append(pool.metrics().starting)
                assert (await session.run("print(1)")).ok

        await asyncio.gather(*(one() for _ in range(12)))
        assert pool.metrics().starting == 0
        return seen

    for pool in opened("zygote", starting=2):
        assert 1 <= max(pool.wait_for(play(pool.pool))) <= 2


@pytest.mark.parametrize("forked", [False, True])
def test_what_burns_between_cells_ends_the_session(zygote: SyncSandboxPool, forked: bool) -> None:
    burn = "import threading\ndef burn():\n    while True: pass\nthreading.Thread(target=burn, daemon=True).start()"
    _burns(zygote, burn, forked)


def test_processes_that_burn_between_cells_end_the_session(zygote: SyncSandboxPool) -> None:
    _burns(zygote, "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass", False)


def test_orphans_that_burn_and_go_end_the_session(zygote: SyncSandboxPool) -> None:
    """Each lives too short to be looked at twice, and has no parent who could be asked."""
    spin = "import time\nends = time.process_time() + 0.1\nwhile time.process_time() < ends: pass"
    child = f"exec({spin!r})\nif os.fork(): os._exit(0)"
    _burns(zygote, f"import os\nif os.fork() == 0:\n    while True:\n        exec({child!r})", False)


def test_threads_that_burn_between_cells_end_the_session_where_nothing_else_runs() -> None:
    for pool in opened("landlock"):
        burn = "import threading\ndef burn():\n    while True: pass\nthreading.Thread(target=burn, daemon=True).start()"
        _burns(pool, burn, False)


def _burns(pool: SyncSandboxPool, cell: str, forked: bool) -> None:
    async def play() -> None:
        async with pool.pool.session(limits=dataclasses.replace(LIMITS, cpu_s=1)) as session:
            if forked:
                async with await session.fork() as branch:
                    await wait(branch)
                    assert (await session.run("6 * 7")).stdout == "42\n"
            else:
                await wait(session)

    async def wait(session: object) -> None:
        assert (await session.run(cell)).ok  # type: ignore[attr-defined]
        await session._live.done  # type: ignore[attr-defined]
        with pytest.raises(SessionLost, match="processor time limit") as lost:
            await session.run("1")  # type: ignore[attr-defined]
        assert lost.value.result is not None
        assert lost.value.result.status == "timeout"

    before = children()
    pool.wait_for(play())
    assert left_since(before) == []


def test_cells_that_work_hard_one_after_another_do_not_add_up(pool: SyncSandboxPool) -> None:
    spin = "import time\nends = time.process_time() + 0.8\nwhile time.process_time() < ends: pass"
    with pool.session(limits=dataclasses.replace(LIMITS, cpu_s=2, wall_s=100)) as session:
        for _ in range(5):
            assert session.run(spin).ok


def test_a_cell_that_may_take_longer_may_compute_longer(pool: SyncSandboxPool) -> None:
    spin = "import time\nends = time.process_time() + 1.5\nwhile time.process_time() < ends: pass"
    with pool.session(limits=dataclasses.replace(LIMITS, cpu_s=1, wall_s=60)) as session:
        assert session.run(spin, wall_s=600).ok
        over = session.run(spin)
        assert (over.status, over.error, over.lost) == ("timeout", "processor time limit", True)


def test_what_a_pool_counts() -> None:
    tight = dataclasses.replace(LIMITS, wall_s=60, output_bytes=1000)
    for pool in opened("zygote"):
        assert pool.metrics().runs == {}  # the one that tries the walls is nobody's
        for code in ("print(1)", "1 / 0", "print('x' * 5000)"):
            pool.run(code, limits=tight)
        pool.run(SLEEP, limits=dataclasses.replace(LIMITS, wall_s=0.3))
        pool.call("def f(): return 1", "f")
        with pool.session() as session:
            session.run("1")
            session.run("1 / 0")
            session.run("import os, time\nos.write(3, b'no answer at all')\ntime.sleep(1000)")
        found = pool.metrics()
        assert found.runs == {"ok": 2, "error": 1, "timeout": 1, "output_limit": 1}
        assert found.cells == {"ok": 1, "error": 2}
        assert found.kills == {"wall": 1, "output": 1, "session": 1}
        assert {phase: found.latency[phase].count for phase in PHASES} == {
            "queue": 5,
            "start": 6,
            "run": 6,
            "collect": 6,
        }
        assert found.latency["run"].p99_s >= 0.3
        assert 0 < found.latency["start"].p50_s <= found.latency["start"].p99_s < 20
        now = found.running, found.cells_running, found.sessions, found.waiting, found.starting
        assert (*now, found.memory_bytes, found.processes) == (0,) * 7


@given(st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_percentiles_are_a_tenth_too_much_at_most(times: list[float], part: float) -> None:
    histogram = Histogram()
    for each in times:
        histogram.add(each)
    exact = sorted(times)[max(0, -(-len(times) * round(part * 100) // 100) - 1)]
    assert exact <= histogram.at(part) * 1.0001
    assert histogram.at(part) <= max(exact * 1.1001, 1e-5)
    assert histogram.summary().mean_s == pytest.approx(sum(times) / len(times))
