"""One pool for each tier and test file, and the canaries that attacks look for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from agentrl.sandbox import SandboxPool, SyncSandboxPool, TierUnavailable
from tests.sandbox.attack import LIMITS, canaries

WALLED = ("zygote", "landlock")


def opened(tier: str, **settings: object) -> Iterator[SyncSandboxPool]:
    unsafe = tier == "none"
    try:
        with SyncSandboxPool(tier=tier, workers=1, limits=LIMITS, i_know_this_is_unsafe=unsafe, **settings) as pool:
            yield pool
    except TierUnavailable as error:
        pytest.skip(str(error))


async def begun(pool: SandboxPool, count: int = 1) -> None:
    """Returns when so many programs run: what has not begun when its worker dies is begun again."""
    while sum(live.begun for live in pool._lives) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def bait() -> Iterator[None]:
    with canaries():
        yield


@pytest.fixture(scope="module", params=WALLED)
def pool(request: pytest.FixtureRequest) -> Iterator[SyncSandboxPool]:
    yield from opened(request.param)


@pytest.fixture(scope="module")
def zygote() -> Iterator[SyncSandboxPool]:
    yield from opened("zygote")


@pytest.fixture(scope="module")
def open_pool() -> Iterator[SyncSandboxPool]:
    """Without walls."""
    yield from opened("none")
