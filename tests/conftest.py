"""Settings of all tests."""

from __future__ import annotations

import os

import pytest

# One thread each: tests run beside each other and beside subprocesses, and torch's threads wait for one another busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _quiet_hub() -> None:
    """No test may go to the network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
