"""B5: what a sandboxed run costs, beside plain Python without walls, bubblewrap, and packages that run code locally.

Wanted: at least 3 times bubblewrap's runs per second and 1.8 times those of an unjailed local exec, p50 <= 4 ms, two
workers at least 1.7 times one, 30 times bubblewrap where sympy is wanted, a session's cell <= 0.15 ms. The peer of
each row is measured in turns with ours, so that other work on the machine slows both; `inspect-ai`, `swe-rex` and
`sympy` are used where they are installed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

from report import Row, arguments, show

from agentrl.sandbox import SandboxPool
from agentrl.sandbox.result import TierUnavailable

CODE = "print(1 + 1)"
SYMPY = "import sympy\nprint(sympy.expand((sympy.Symbol('x') + 1) ** 2))"
PYTHON = os.path.realpath(sys.executable)
Once = Callable[[], Awaitable[None]]


async def main() -> None:
    options = arguments(__doc__ or "")
    runs = 60 if options.quick else 400
    rows = []
    for tier in ("zygote", "landlock"):
        try:
            rows += await tier_rows(tier, runs)
        except TierUnavailable as error:
            print(error)
    if importlib.util.find_spec("sympy"):
        rows += await sympy_rows(runs)
    rows += await session_rows(10 * runs)
    show("B5 sandbox", rows, options.json)


async def tier_rows(tier: str, runs: int) -> list[Row]:
    """Time of one run beside each peer, and time a run with one worker and with two, each with one run at a time."""
    async with SandboxPool(tier=tier, workers=1) as pool:
        ours = run_in(pool, CODE, "2\n")
        rows = [await beside(f"{tier} run", ours, name, peer, runs) for name, peer in await peers()]
        one = await throughput(ours, 1, runs)
        slow_one = await throughput(plain_python, 1, runs)
    async with SandboxPool(tier=tier, workers=2) as pool:
        two = await throughput(run_in(pool, CODE, "2\n"), 2, runs)
        slow_two = await throughput(plain_python, 2, runs)
    return [
        *rows,
        Row(f"{tier}: one worker, time a run", "ms", 1e3 / one, 1e3 / one, 1e3 / slow_one, "python -I -S -c, one"),
        Row(f"{tier}: two workers, time a run", "ms", 1e3 / two, 1e3 / two, 1e3 / slow_two, "python -I -S -c, two"),
        Row(f"{tier}: two workers over one", "times", two / one, two / one, floor=1.7),
    ]


async def sympy_rows(runs: int) -> list[Row]:
    async with SandboxPool(workers=1, preload="scientific") as pool:
        ours = run_in(pool, SYMPY, "x**2 + 2*x + 1\n")
        if bwrap := bubblewrap(SYMPY):
            return [await beside("with sympy preloaded", ours, "bwrap + python", bwrap, max(10, runs // 20))]
        return [
            await beside("with sympy preloaded", ours, "python -c", fresh(PYTHON, "-c", SYMPY), max(10, runs // 20))
        ]


async def session_rows(cells: int) -> list[Row]:
    async with SandboxPool(workers=1) as pool, pool.session() as session:

        async def cell() -> None:
            assert (await session.run("x = 1")).ok

        await times(cell, 50)
        took = await times(cell, cells)
    return [Row("session cell", "ms", *spread(took), floor=0.15)]


async def peers() -> list[tuple[str, Once]]:
    found: list[tuple[str, Once]] = [("python -I -S -c, no walls", plain_python)]
    if bwrap := bubblewrap(CODE):
        found.append(("bwrap + python", bwrap))
    if importlib.util.find_spec("inspect_ai"):
        found.append(("inspect-ai local, no walls", await inspect_local()))
    if importlib.util.find_spec("swerex"):
        found.append(("swe-rex local, no walls", await swerex_local()))
    return found


async def beside(name: str, ours: Once, peer_name: str, peer: Once, runs: int) -> Row:
    """Ours and the peer's in turns, in small groups."""
    await times(ours, 5)
    await times(peer, 2)
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(10):
        mine += await times(ours, max(1, runs // 10))
        theirs += await times(peer, max(1, runs // 20))
    median, p95 = spread(mine)
    print(
        f"{name}: p50 {median:.2f} ms, p99 {sorted(mine)[int(0.99 * len(mine))] * 1e3:.2f} ms; {peer_name}: p50",
        end=" ",
    )
    print(f"{spread(theirs)[0]:.2f} ms")
    return Row(name, "ms", median, p95, spread(theirs)[0], peer_name, floor=4.0)


def run_in(pool: SandboxPool, code: str, wanted: str) -> Once:
    async def once() -> None:
        result = await pool.run(code)
        assert result.stdout == wanted, result

    return once


def fresh(*command: str) -> Once:
    async def once() -> None:
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        output, _ = await process.communicate()
        assert output, command

    return once


plain_python = fresh(PYTHON, "-I", "-S", "-c", CODE)


def bubblewrap(code: str) -> Once | None:
    """Walls of namespaces, without a filter or limits; the whole system read-only, since that is the quickest."""
    if not shutil.which("bwrap"):
        return None
    flags = [
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--tmpfs",
        "/var/tmp",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    isolated = ["-I"] if "sympy" in code else ["-I", "-S"]
    return fresh("bwrap", *flags, sys.executable if "sympy" in code else PYTHON, *isolated, "-c", code)


async def inspect_local() -> Once:
    from inspect_ai.util._sandbox.local import LocalSandboxEnvironment

    sandbox = LocalSandboxEnvironment()

    async def once() -> None:
        assert (await sandbox.exec([PYTHON, "-I", "-S", "-c", CODE])).stdout == "2\n"

    return once


async def swerex_local() -> Once:
    from swerex.runtime.abstract import Command
    from swerex.runtime.local import LocalRuntime

    runtime = LocalRuntime()

    async def once() -> None:
        assert (await runtime.execute(Command(command=[PYTHON, "-I", "-S", "-c", CODE]))).stdout == "2\n"

    return once


async def times(once: Once, count: int) -> list[float]:
    """Seconds of each."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await once()
        took.append(time.perf_counter() - began)
    return took


async def throughput(once: Once, at_once: int, runs: int) -> float:
    """Runs a second with so many under way."""
    left = iter(range(runs))

    async def worker() -> None:
        for _ in left:
            await once()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return runs / (time.perf_counter() - began)


def spread(took: list[float]) -> tuple[float, float]:
    """Median and 95th percentile, in milliseconds."""
    took = sorted(took)
    return 1e3 * statistics.median(took), 1e3 * took[int(0.95 * len(took))]


if __name__ == "__main__":
    asyncio.run(main())
