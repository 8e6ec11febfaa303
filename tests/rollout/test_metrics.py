"""Where a step's rollout went, by hand."""

from __future__ import annotations

import pytest

from agentrl.rollout.metrics import rollout_metrics
from agentrl.trajectory import Group, Outcome, ToolUse, Trajectory, Turn


def group(*turns: Turn) -> Group:
    return Group("g", "t", (Trajectory("t", "g", 0, (), turns, Outcome.TERMINATED, 0.0),))


def test_means_over_turns_and_the_queue_where_it_is_told() -> None:
    use = ToolUse("look", 0.5, "timeout")
    turns = [
        Turn(0, slice(0, 1), engine_s=1.0, queue_s=0.25, env_s=2.0, tools=(use, ToolUse("look", 1.5))),
        Turn(0, slice(1, 2), engine_s=3.0, queue_s=0.75, env_s=0.0),
        Turn(0, slice(2, 3), engine_s=5.0),
    ]
    found = rollout_metrics([group(*turns[:1]), group(*turns[1:])])
    assert found["time/engine_s"] == pytest.approx(3.0)
    assert found["time/queue_s"] == pytest.approx(0.5)
    assert found["time/env_s"] == pytest.approx(2 / 3)
    assert (found["tool/look/calls"], found["tool/look/errors"], found["time/tool/look_s"]) == (2, 0.5, 1.0)


def test_an_engine_that_does_not_tell_has_no_queue() -> None:
    assert "time/queue_s" not in rollout_metrics([group(Turn(0, slice(0, 1), engine_s=1.0))])
    assert rollout_metrics([]) == {}
