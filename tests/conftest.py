"""Settings of all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

# The same examples at each run, so that what passed passes. `make test-slow` looks for new ones.
# No clock decides: "too slow" would be a machine that was held up for a second.
TIMELESS: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, database=None, **TIMELESS)
settings.register_profile("search", print_blob=True, **TIMELESS)
settings.load_profile("same")

# One thread each: tests run beside each other and beside subprocesses, and torch's threads wait for one another busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _quiet_hub() -> None:
    """No test may go to the network."""
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data, with AGENTRL_DATA set to it."""
    root = Path(os.environ.get("AGENTRL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (root / "gsm8k" / "test.jsonl").is_file():
        pytest.skip(f"no GSM8K files under {root}; set AGENTRL_DATA to the folder that holds gsm8k/")
    monkeypatch.setenv("AGENTRL_DATA", str(root))
    return root
