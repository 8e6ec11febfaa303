"""What environments and parsers counted, as a step's means."""

from __future__ import annotations

from agentrl.train.metrics import env_metrics
from agentrl.trajectory import Group, Outcome, Trajectory


def played(outcome: Outcome, **metrics: float) -> Trajectory:
    reward = None if outcome.failed else 1.0
    return Trajectory("t", "g", 0, segments=(), turns=(), outcome=outcome, reward=reward, metrics=metrics)


def test_counts_of_the_parser_stand_beside_those_of_the_environment() -> None:
    ended = Outcome.TERMINATED
    one = played(ended, turns=2.0, calls=3.0, unreadable_calls=1.0, seen=4.0)
    other = played(ended, turns=1.0, calls=0.0, unreadable_calls=0.0)
    broken = played(Outcome.FAILED_ENV, turns=9.0, calls=9.0, unreadable_calls=9.0, seen=9.0)
    found = env_metrics([Group("g", "t", (one, other, broken))])
    assert found == {"calls": 1.5, "unreadable_calls": 0.5, "env/seen": 2.0}
