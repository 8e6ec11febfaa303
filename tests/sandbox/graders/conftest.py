"""One pool for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from agentrl.sandbox import Limits, SandboxPool
from agentrl.sandbox.grading import Grader, Pace

LIMITS = Limits(
    wall_s=6, cpu_s=0.7, address_bytes=512 << 20, memory_bytes=400 << 20, disk_bytes=16 << 20, output_bytes=1 << 20
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[SandboxPool]:
    async with SandboxPool(limits=LIMITS) as pool:
        yield pool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grader(pool: SandboxPool) -> Grader:
    return Grader(pool, pace=Pace(deadline_s=100))
