"""One pool for each tier and test file, and the canaries that attacks look for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache

import pytest

from agentrl.sandbox import SandboxPool, SyncSandboxPool, TierUnavailable
from tests.sandbox.attack import LIMITS, Attack, canaries
from tests.sandbox.grading import GRADED

WALLED = ("zygote", "landlock", "bwrap")
WHOLE = ("zygote", "bwrap")  # where a run may have processes of its own


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Wrong candidates are refused outside the walls, and every run on `bwrap` starts an interpreter."""
    graded = {attack.name for attack in GRADED}
    for item in items:
        chosen = getattr(item, "callspec", None)
        if chosen and chosen.params.get("pool") == "bwrap":
            attack = chosen.params.get("attack")
            if isinstance(attack, Attack) and attack.name in graded:
                item.add_marker(pytest.mark.slow)


def many(pool: SyncSandboxPool, count: int) -> int:
    """So many runs, or fewer where each starts an interpreter."""
    return count // 6 if pool.tier == "bwrap" else count


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


@pytest.fixture(scope="module", params=WHOLE)
def whole(request: pytest.FixtureRequest) -> Iterator[SyncSandboxPool]:
    yield from opened(request.param)


@pytest.fixture(scope="module")
def zygote() -> Iterator[SyncSandboxPool]:
    """Whose sessions can be forked."""
    yield from opened("zygote")


@cache
def refusal(tier: str) -> str:
    """Why there is no such tier here."""
    try:
        with SyncSandboxPool(tier=tier, workers=1):
            return ""
    except TierUnavailable as error:
        return str(error)


@pytest.fixture(params=WALLED)
def tier(request: pytest.FixtureRequest) -> str:
    """For tests that open pools of their own."""
    if why := refusal(request.param):
        pytest.skip(why)
    return str(request.param)


@pytest.fixture(scope="module")
def open_pool() -> Iterator[SyncSandboxPool]:
    """Without walls."""
    yield from opened("none")
