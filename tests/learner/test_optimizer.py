"""The schedule, by hand."""

from __future__ import annotations

import pytest

from agentrl.learner.optimizer import lr_factor
from agentrl.learner.settings import OptimizerSettings


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1 / 3, 2 / 3, 1, 0.853553, 0.5, 0.146447, 0]),
    ],
)
def test_factor(schedule: str, expected: list[float]) -> None:
    settings = OptimizerSettings(warmup_steps=2, schedule=schedule)  # type: ignore[arg-type]
    assert [lr_factor(update, settings, 6) for update in range(7)] == pytest.approx(expected, abs=1e-6)
