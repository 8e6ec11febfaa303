"""Episodes made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agentrl.trajectory import Outcome, Segment, Trajectory, Turn


def episode(
    correct: float = 1.0, process: float = 0.0, outcome: Outcome = Outcome.TERMINATED, **fields: Any
) -> Trajectory:
    mask = np.array([False, True, True])
    segment = Segment(np.arange(3), mask, np.zeros(3, np.float32), np.where(mask, 0, -1))
    given: dict[str, Any] = {
        "task_id": "t",
        "group_id": "g",
        "seed": 0,
        "segments": (segment,),
        "turns": (Turn(0, slice(1, 3), {"correct": correct, "valid_call": process}),),
        "outcome": outcome,
        "reward": None if outcome.failed else correct + process,
        "reward_kinds": {"correct": "outcome", "valid_call": "process"},
    }
    return Trajectory(**(given | fields))


def failed(outcome: Outcome = Outcome.FAILED_TOOL, error: str = "ToolFailure: gone") -> Trajectory:
    return episode(outcome=outcome, error=error, turns=())


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """`make.episode(...)` and `make.failed(...)`."""
    return SimpleNamespace(episode=episode, failed=failed)
