"""A soak of the sandbox: 100,000 runs on each tier, a fifth of them faulty.

Prints what this process and the fork servers hold after each tenth of the runs, and how long the good runs took; then
what 200 hanging programs cost the 800 good ones beside them, all started at once. Exits with 1 where something grew,
something was left, or a program ended otherwise than it should. `--quick` makes 5,000 runs a tier.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import glob
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from agentrl.sandbox import Limits, SandboxPool, TierUnavailable

# Generous in time: the machine may be busy.
FAULT = Limits(wall_s=60.0, cpu_s=2.0, memory_bytes=128 << 20, processes=16, files=500)
SPIN = Limits(wall_s=60.0, cpu_s=0.05)
HANG = Limits(wall_s=2.0)
FAULTY = {  # and how each may end
    "1 / 0": {"error"},
    "import sys\nsys.exit(3)": {"error"},
    "import os\nos._exit(0)": {"ok"},
    "import os\nos.abort()": {"signal"},
    "while True: print('x' * 9999)": {"output_limit"},
    "while True: pass": {"timeout"},
    "x = bytearray(10**12)": {"memory"},
    "x = []\nwhile True: x.append(bytearray(1 << 26))": {"memory"},
    "open('f', 'wb').write(bytes(10**6))": {"ok"},
    "for n in range(10**9): open(str(n), 'w').close()": {"error"},
    "import os\nos.close(0); os.close(1); os.close(2)": {"ok", "error"},
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(9)": {"ok", "error"},
    "import os, time\nfor _ in range(99):\n    if os.fork() == 0: time.sleep(99)": {"error"},
    "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()": {"ok"},
    "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()": {"error", "signal", "memory"},
    "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)": {"error"},
}


@dataclass(frozen=True)
class Held:
    """What there is after so many runs."""

    runs: int
    descriptors: int
    server_descriptors: int
    processes: int  # below this one
    rss_mb: float
    server_mb: float  # the fork servers together
    shared: int  # entries of /dev/shm, our folders in the temporary one, and System V objects


@dataclass
class Soak:
    tier: str
    at: list[Held] = field(default_factory=list)
    good_ms: list[list[float]] = field(default_factory=list)  # by tenth
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def faults(self) -> Iterator[str]:
        first, last = self.at[0], self.at[-1]
        for name in ("descriptors", "server_descriptors", "processes", "shared"):
            if getattr(last, name) > getattr(first, name):
                yield f"{name} grew from {getattr(first, name)} to {getattr(last, name)}"
        for name in ("rss_mb", "server_mb"):
            if getattr(last, name) - getattr(first, name) > 8:
                yield f"{name} grew from {getattr(first, name):.1f} to {getattr(last, name):.1f}"
        yield from self.wrong[:10]


async def soak(tier: str, runs: int) -> Soak:
    found = Soak(tier)
    async with SandboxPool(tier=tier, workers=2) as pool:
        await many(pool, runs // 50, Soak(tier))  # what is made once is there now
        began = time.perf_counter()
        for tenth in range(10):
            found.good_ms.append(await many(pool, runs // 10, found))
            found.at.append(await settled(pool, (tenth + 1) * runs // 10))
        found.seconds = time.perf_counter() - began
    return found


async def many(pool: SandboxPool, count: int, found: Soak) -> list[float]:
    """`count` runs, eight at once; returns the milliseconds of the good ones, in the pool's time."""
    programs = list(FAULTY.items())
    numbers = iter(range(count))
    took = []

    async def worker() -> None:
        for n in numbers:
            faulty = n % 5 == 0
            code, wanted = programs[n // 5 % len(programs)] if faulty else (f"print({n})", {"ok"})
            result = await pool.run(code, limits=limits_of(code) if faulty else None)
            found.statuses[result.status] += 1
            if result.status not in wanted or (not faulty and result.stdout != f"{n}\n"):
                found.wrong.append(f"{code!r} ended as {result}")
            if not faulty:
                took.append(1e3 * result.wall_s)

    await asyncio.gather(*(worker() for _ in range(8)))
    return took


def limits_of(code: str) -> Limits:
    return SPIN if code == "while True: pass" else FAULT


async def settled(pool: SandboxPool, runs: int) -> Held:
    """What is held, asked until it is no more than at rest: the last run's processes may be ending."""
    gc.collect()
    servers = [p for worker in pool.workers for p in _tree(worker.pid)]
    for _ in range(100):
        processes = len(psutil.Process().children(recursive=True))
        if processes <= 2 * len(pool.workers):
            break
        await asyncio.sleep(0.05)
    return Held(
        runs,
        psutil.Process().num_fds(),
        sum(len(os.listdir(f"/proc/{p.pid}/fd")) for p in servers),
        processes,
        psutil.Process().memory_info().rss / 1e6,
        sum(p.memory_info().rss for p in servers) / 1e6,
        len(os.listdir("/dev/shm"))
        + len(glob.glob(f"{tempfile.gettempdir()}/sandbox-runner-{os.getpid()}-*"))
        + _system_v(),
    )


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children()[:1]]


def _system_v() -> int:
    return sum(len(Path(f"/proc/sysvipc/{kind}").read_text().splitlines()) - 1 for kind in ("msg", "sem", "shm"))


async def beside_hanging(count: int) -> tuple[float, float]:
    """Milliseconds, 99th percentile, that good programs waited and ran, alone and with a fifth more that hang."""
    waited = []
    for hanging in (0, count // 4):
        async with SandboxPool(workers=2, running=2 * count) as pool:

            async def good(pool: SandboxPool = pool) -> float:
                began = time.perf_counter()
                assert (await pool.run("print(1)", limits=Limits(wall_s=120))).ok
                return 1e3 * (time.perf_counter() - began)

            hangs = [asyncio.create_task(pool.run("import time\ntime.sleep(99)", limits=HANG)) for _ in range(hanging)]
            waited.append(percentile(await asyncio.gather(*(good() for _ in range(count))), 0.99))
            assert {result.status for result in await asyncio.gather(*hangs)} <= {"timeout"}
    return waited[0], waited[1]


def percentile(figures: list[float], share: float) -> float:
    return sorted(figures)[int(share * (len(figures) - 1))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--tier", action="append", help="only this one; may be given several times")
    options = parser.parse_args()
    faults, told = [], []
    for tier in options.tier or ("zygote", "landlock"):
        try:
            found = asyncio.run(soak(tier, 5_000 if options.quick else 100_000))
        except TierUnavailable as error:
            print(error)
            continue
        tell(found)
        told.append(asdict(found) | {"good_ms": [percentile(tenth, 0.99) for tenth in found.good_ms]})
        faults += [f"{tier}: {fault}" for fault in found.faults()]
    alone, beside = asyncio.run(beside_hanging(160 if options.quick else 800))
    print(f"good programs all at once, p99: {alone:.0f} ms alone, {beside:.0f} ms with a quarter as many that hang")
    if options.json is not None:
        options.json.write_text(json.dumps({"soaks": told, "p99_ms": [alone, beside]}, indent=2) + "\n")
    print(*(f"MISSED: {fault}" for fault in faults), sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


def tell(found: Soak) -> None:
    print(f"{found.tier}: {sum(found.statuses.values())} runs in {found.seconds:.0f} s; {dict(found.statuses)}")
    names = f"{'runs':>8} {'fds':>5} {'servers':>8} {'processes':>10} {'MB':>7} {'servers':>8} {'shared':>7}"
    print(f"{names} {'p50 ms':>7} {'p99':>6}")
    for at, ms in zip(found.at, found.good_ms, strict=True):
        print(
            f"{at.runs:>8} {at.descriptors:>5} {at.server_descriptors:>8} {at.processes:>10} {at.rss_mb:>7.1f} "
            f"{at.server_mb:>8.1f} {at.shared:>7} {percentile(ms, 0.5):>7.2f} {percentile(ms, 0.99):>6.1f}"
        )


if __name__ == "__main__":
    sys.exit(main())
