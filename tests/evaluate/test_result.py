"""Results: what counts as a success, and that failed episodes stand in no rate, mean or interval."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from agentrl.evaluate.result import ScenarioResult, SuiteResult, succeeded, summarise
from agentrl.evaluate.statistics import wilson
from agentrl.trajectory import Outcome, Turn


def test_failed_episodes_are_counted_apart_and_change_no_figure(make: SimpleNamespace) -> None:
    valid = [[make.episode(1.0)], [make.episode(0.0)], [make.episode(1.0)]]
    broken = [[make.failed()], [make.failed(Outcome.CANCELLED, "stopped")], [make.failed(error="ToolFailure: later")]]
    alone, together = summarise(valid), summarise([valid[0], *broken, *valid[1:]])
    assert together.success == alone.success == wilson(2, 3)
    assert together.reward == alone.reward
    assert (together.turns, together.tokens, together.metrics) == (alone.turns, alone.tokens, alone.metrics)
    assert (alone.failed, together.failed, together.episodes) == (0, 3, 6)
    assert together.outcomes == {"cancelled": 1, "failed_tool": 2, "terminated": 3}
    assert together.errors == {"failed_tool": "ToolFailure: gone", "cancelled": "stopped"}


def test_all_failed_is_unknown_not_zero(make: SimpleNamespace) -> None:
    found = summarise([[make.failed()], [make.failed()]])
    assert (found.success.n, found.failed) == (0, 2)
    assert found.to_dict()["success"]["mean"] is None
    assert found.to_dict()["turns"] is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["reward"]["mean"] is None


def test_truncated_episodes_count_with_their_reward(make: SimpleNamespace) -> None:
    found = summarise([[make.episode(0.0, outcome=Outcome.TRUNCATED_TURNS)], [make.episode(1.0)]])
    assert (found.success, found.truncated, found.failed) == (wilson(1, 2), 1, 0)


def test_success_is_the_outcome_parts_reaching_the_threshold(make: SimpleNamespace) -> None:
    assert succeeded(make.episode(1.0))
    assert succeeded(make.episode(1.0, process=-0.5))  # a fine for the way there does not undo the arrival
    assert not succeeded(make.episode(0.0, process=3.0))  # and no way there replaces it
    assert not succeeded(make.episode(0.5))
    assert succeeded(make.episode(0.5), threshold=0.5)
    tenths = (Turn(0, slice(0, 1), {"a": sum([0.1] * 10)}),)  # 0.9999999999999999
    assert succeeded(make.episode(turns=tenths, reward_kinds={"a": "outcome"}))


def test_attempts_are_clustered_by_task_and_give_pass_at_k(make: SimpleNamespace) -> None:
    found = summarise(
        [
            [make.episode(1.0), make.episode(0.0)],
            [make.episode(0.0), make.episode(0.0)],
            [make.episode(1.0), make.failed()],
        ]
    )
    assert found.successes == ((True, False), (False, False), (True,))
    assert found.success.mean == 2 / 5
    assert found.success.n == 5
    assert found.pass_at == {2: wilson(1, 2)}  # the third task has only one valid attempt
    assert summarise([[make.episode()]]).pass_at == {}


def test_means_over_valid_episodes(make: SimpleNamespace) -> None:
    with_calls = make.episode(metrics={"tool_calls": 3.0, "tool_error/timeout": 1.0})
    found = summarise([[with_calls], [make.episode(metrics={"tool_calls": 0.0})]])
    assert (found.turns, found.tokens, found.action_tokens) == (1.0, 3.0, 2.0)
    assert found.metrics == {"tool_calls": 1.5, "tool_error/timeout": 0.5, "called_tool": 0.5}


def test_suite_pools_its_scenarios_and_writes_every_fault(make: SimpleNamespace) -> None:
    faults = tuple(f"line {i} is wrong" for i in range(9))
    one = ScenarioResult(
        "one", "calculator", "test", 1.0, faults, summarise([[make.episode()], [make.episode()], [make.failed()]])
    )
    two = ScenarioResult("two", "calculator", "test", 2.0, (), summarise([[make.episode(0.0)]]))
    suite = SuiteResult("both", (one, two))
    assert suite.success == wilson(2, 3)
    assert (suite.episodes, suite.failed, suite.truncated) == (4, 1, 0)
    assert suite.outcomes == {"failed_tool": 1, "terminated": 3}
    written = json.loads(json.dumps(suite.to_dict(), allow_nan=False))
    assert written["overall"]["success"] == pytest.approx(wilson(2, 3).to_dict())
    assert written["overall"]["wall_s"] == 3.0
    assert written["scenarios"][0]["data_faults"] == list(faults)
    assert [scenario["name"] for scenario in written["scenarios"]] == ["one", "two"]
