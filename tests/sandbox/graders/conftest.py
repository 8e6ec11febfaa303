"""One pool for all tests of a module: of the strongest tier that there is here, and in slow runs of the weaker one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agentrl.sandbox import Limits, SandboxPool, TierUnavailable
from agentrl.sandbox.grading import Grader, Pace

LIMITS = Limits(
    wall_s=5, cpu_s=0.7, address_bytes=512 << 20, memory_bytes=400 << 20, disk_bytes=16 << 20, output_bytes=1 << 20
)
TIERS = [pytest.param(None, id="best"), *(pytest.param(tier, marks=pytest.mark.slow) for tier in ("landlock", "bwrap"))]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TIERS)
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[SandboxPool]:
    limits = getattr(request.module, "LIMITS", LIMITS)
    try:
        async with SandboxPool(tier=request.param, limits=limits) as pool:
            yield pool
    except TierUnavailable as error:
        pytest.skip(str(error))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grader(pool: SandboxPool) -> Grader:
    return Grader(pool, pace=Pace(deadline_s=100))
