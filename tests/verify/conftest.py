"""What the tests of the verifier share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from agentrl.verify import Verifier

LIMIT_S = 2.0  # short

needs_math_verify = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed (the extra `math`)"
)


@pytest.fixture(scope="session")
def warm() -> Iterator[Verifier]:
    """One verifier with warm workers, for all tests that only ask it."""
    with Verifier(limit_s=10) as verifier:
        verifier.ready_sync()
        yield verifier


@pytest.fixture(scope="session")
def quick() -> Iterator[Verifier]:
    """One with a short limit, for all tests that hang or kill its workers: it is whole again after each of them.

    Not so short that a check gets no processor in four times that on a busy machine, which is then a failure.
    """
    with Verifier(limit_s=LIMIT_S) as verifier:
        verifier.ready_sync()
        yield verifier
