"""Thousands of runs, a fifth of them faulty: whatever could grow is as it was."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import psutil
import pytest

from agentrl.sandbox import SyncSandboxPool
from tests.processes import children, left_since
from tests.sandbox.conftest import many
from tests.sandbox.test_deaths import server_of

pytestmark = pytest.mark.slow

FAULTY = {
    "1 / 0": {"error"},
    "import os\nos.abort()": {"signal"},
    "while True: print('x' * 9999)": {"output_limit"},
    "x = bytearray(10**12)": {"memory"},
    "open('f', 'wb').write(bytes(10**6))": {"ok"},
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(9)": {"ok", "error"},
    "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()": {"ok"},
}


def test_nothing_grows(pool: SyncSandboxPool) -> None:
    run_many(pool, many(pool, 500))
    me, server, before = psutil.Process(), server_of(pool), children()
    first = state(me, server)
    run_many(pool, many(pool, 5000))
    assert left_since(before, within=10) == []
    last = state(me, server)
    assert {name: last[name] - first[name] for name in last if name.startswith("descriptors")} == {
        "descriptors": 0,
        "descriptors of the server": 0,
    }
    assert last["memory"] - first["memory"] < 8 << 20
    assert last["memory of the server"] - first["memory of the server"] < 4 << 20


def run_many(pool: SyncSandboxPool, count: int) -> None:
    programs = list(FAULTY)
    numbers = iter(range(count))
    seen: Counter[str] = Counter()

    async def worker() -> None:
        for n in numbers:
            if n % 5:
                result = await pool.pool.run(f"print({n})")
                assert (result.status, result.stdout) == ("ok", f"{n}\n")
            else:
                code = programs[n // 5 % len(programs)]
                result = await pool.pool.run(code)
                assert result.status in FAULTY[code], (code, result)
            seen[result.status] += 1

    async def all_of_them() -> None:
        await asyncio.gather(*(worker() for _ in range(8)))

    pool.wait_for(all_of_them())
    assert sum(seen.values()) == count


def state(me: psutil.Process, server: psutil.Process) -> dict[str, int]:
    return {
        "descriptors": me.num_fds(),
        "descriptors of the server": len(os.listdir(f"/proc/{server.pid}/fd")),
        "memory": me.memory_info().rss,
        "memory of the server": server.memory_info().rss,
    }
