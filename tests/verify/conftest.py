"""What the tests of the verifier share."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Iterator

import pytest

from agentrl.verify import Verifier

needs_math_verify = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed (the extra `math`)"
)


@pytest.fixture(scope="session")
def warm() -> Iterator[Verifier]:
    """One verifier with warm workers, for all tests that only ask it."""
    with Verifier(limit_s=10) as verifier:
        verifier.ready_sync()
        yield verifier


@pytest.fixture
async def quick() -> AsyncIterator[Verifier]:
    """A verifier of the test's own with a short limit."""
    async with Verifier(limit_s=0.5) as verifier:
        await verifier.ready()
        yield verifier
