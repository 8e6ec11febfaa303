"""What the peers of B1 share: the task's size, and a loop that plays and times as many episodes as it is told.

What comes in: a number a line on stdin, how many episodes to play at once. What goes out: for each a line of JSON on
stdout, `{"wall": ..., "cpu": ...}`: microseconds a turn, of the clock and of the processor. Standard library alone,
for it runs in the environment of `make bench-setup`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable

TURNS = 4  # three calls of the tool, then the answer
ARGUMENTS = '{"text": "hello"}'
ANSWER = "bye"


def episodes(at_once: int) -> int:
    """How many to play in one measurement: enough for its time to be read off a clock."""
    return max(at_once, 64)


async def gathered(one: Callable[[], Awaitable[None]], at_once: int) -> None:
    """Play the episodes of one measurement, `at_once` of them at a time."""
    gate = asyncio.Semaphore(at_once)

    async def gated() -> None:
        async with gate:
            await one()

    await asyncio.gather(*(gated() for _ in range(episodes(at_once))))


async def serve(play: Callable[[int], Awaitable[None]]) -> None:
    """Time `play(at_once)` for each line of stdin. It plays `episodes(at_once)` of `TURNS` turns and checks them."""
    logging.disable(logging.INFO)
    gc.collect()  # the collector is kept from the peer's way as from ours, by the same settings
    gc.freeze()
    gc.set_threshold(20_000, *gc.get_threshold()[1:])
    for line in sys.stdin:
        at_once = int(line)
        turns = TURNS * episodes(at_once)
        began, cpu_began = time.perf_counter(), time.process_time()
        await play(at_once)
        cpu, wall = time.process_time() - cpu_began, time.perf_counter() - began
        print(json.dumps({"wall": 1e6 * wall / turns, "cpu": 1e6 * cpu / turns}), flush=True)
