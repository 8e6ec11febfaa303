"""What an evaluation found.

What comes in: the trajectories of each task. What goes out: frozen results with intervals, as values or as JSON.
Failed and cancelled episodes have no reward, and unplayed ones (the prompt did not fit, or time was over before the
policy had spoken) say nothing of the policy: they are counted apart and stand in no rate, mean or interval. Knows no
engine.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl.evaluate.statistics import (
    Interval,
    known,
    mean_interval,
    pass_at_k_interval,
    success_interval,
)
from agentrl.rollout.failures import scored
from agentrl.trajectory import Trajectory, succeeded

UNPLAYED = "unplayed"  # stands for the outcome where the policy never spoke and no machinery broke

_ROUNDING = 1e-9  # ten parts of 0.1 must reach a threshold of 1


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Episodes of one environment. Means run over the valid episodes and are nan where there are none."""

    success: Interval
    reward: Interval
    pass_at: Mapping[int, Interval]  # k -> P(one of k attempts succeeds), for k = the repeats where there are several
    episodes: int  # played, the failed ones included
    failed: int  # machinery broke, or cancelled, and the retries were used up; or unplayed
    retried: Mapping[str, int]  # attempts that failed and were played anew, by outcome; not among the episodes
    truncated: int
    outcomes: Mapping[str, int]  # every outcome that came up, failed ones and "unplayed" included
    errors: Mapping[str, str]  # one error's text for each failed outcome and for "unplayed"
    turns: float  # mean a valid episode, as are the next three
    tokens: float
    action_tokens: float
    metrics: Mapping[str, float]  # the env's; absent in an episode counts as 0. `called_tool`: share that called any
    successes: tuple[tuple[bool, ...], ...] = field(repr=False)  # for each task its valid attempts
    rewards: tuple[tuple[float, ...], ...] = field(repr=False)
    trajectories: tuple[Trajectory, ...] = field(repr=False)  # in the order played: task by task

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; without the episodes themselves."""
        return {
            "success": self.success.to_dict(),
            "reward": self.reward.to_dict(),
            "pass_at": {str(k): interval.to_dict() for k, interval in self.pass_at.items()},
            "episodes": self.episodes,
            "failed": self.failed,
            "retried": dict(self.retried),
            "truncated": self.truncated,
            "outcomes": dict(self.outcomes),
            "errors": dict(self.errors),
            "turns": known(self.turns),
            "tokens": known(self.tokens),
            "action_tokens": known(self.action_tokens),
            "metrics": {name: known(value) for name, value in self.metrics.items()},
        }


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    name: str
    env: str
    split: str
    wall_s: float
    data_faults: tuple[str, ...]  # what the env found wrong in the data of this split
    result: EvaluationResult

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "env": self.env,
            "split": self.split,
            "wall_s": self.wall_s,
            **self.result.to_dict(),
            "data_faults": list(self.data_faults),
        }


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """All scenarios of a suite. What speaks of the whole pools the episodes: a scenario weighs by its episodes."""

    name: str
    scenarios: tuple[ScenarioResult, ...]
    missing: tuple[str, ...] = ()  # names of scenarios that were not played to their end: nothing here speaks of them

    @property
    def success(self) -> Interval:
        return success_interval(itertools.chain.from_iterable(s.result.successes for s in self.scenarios))

    @property
    def reward(self) -> Interval:
        return mean_interval(itertools.chain.from_iterable(s.result.rewards for s in self.scenarios))

    @property
    def episodes(self) -> int:
        return sum(s.result.episodes for s in self.scenarios)

    @property
    def failed(self) -> int:
        return sum(s.result.failed for s in self.scenarios)

    @property
    def truncated(self) -> int:
        return sum(s.result.truncated for s in self.scenarios)

    @property
    def outcomes(self) -> Mapping[str, int]:
        return _sorted_counts(
            itertools.chain.from_iterable(Counter(s.result.outcomes).elements() for s in self.scenarios)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every data fault included."""
        overall = {
            "success": self.success.to_dict(),
            "reward": self.reward.to_dict(),
            "episodes": self.episodes,
            "failed": self.failed,
            "truncated": self.truncated,
            "outcomes": dict(self.outcomes),
            "wall_s": sum(s.wall_s for s in self.scenarios),
        }
        shown = {"suite": self.name, "missing": list(self.missing), "overall": overall}
        return {**shown, "scenarios": [s.to_dict() for s in self.scenarios]}


def summarise(
    per_task: Sequence[Sequence[Trajectory]], *, retried: Sequence[Trajectory] = (), pass_threshold: float = 1.0
) -> EvaluationResult:
    """Turn the episodes of each task into a result.

    Args:
        per_task: for each task its episodes; the most episodes of any task is the k of pass@k.
        retried: attempts that failed and were played anew; `per_task` has what came of them.
        pass_threshold: an episode succeeded where its outcome rewards sum to at least this.
    """
    played = [t for attempts in per_task for t in attempts]
    valid_by_task = [[t for t in attempts if scored(t)] for attempts in per_task]
    valid = [t for attempts in valid_by_task for t in attempts]
    successes = tuple(tuple(succeeded(t, pass_threshold) for t in attempts) for attempts in valid_by_task)
    rewards = tuple(tuple(t.reward for t in attempts if t.reward is not None) for attempts in valid_by_task)
    repeats = max(map(len, per_task), default=0)
    return EvaluationResult(
        success=success_interval(successes),
        reward=mean_interval(rewards),
        pass_at={repeats: pass_at_k_interval(successes, repeats)} if repeats > 1 else {},
        episodes=len(played),
        failed=len(played) - len(valid),
        retried=_sorted_counts(t.outcome.value for t in retried),
        truncated=sum(t.outcome.truncated for t in valid),
        outcomes=_sorted_counts(map(_ended, played)),
        errors=_errors([*played, *retried]),
        turns=_mean(len(t.turns) for t in valid),
        tokens=_mean(t.n_tokens for t in valid),
        action_tokens=_mean(t.n_action_tokens for t in valid),
        metrics=_metrics(valid),
        successes=successes,
        rewards=rewards,
        trajectories=tuple(played),
    )


def called_tool(trajectory: Trajectory) -> bool:
    """Whether a tool was really called: a call that cannot be read, or of a tool that is not there, is none."""
    counts = trajectory.metrics
    void = counts.get("tool_error/malformed", 0.0) + counts.get("tool_error/unknown_tool", 0.0)
    return counts.get("tool_calls", 0.0) > void


def _metrics(valid: Sequence[Trajectory]) -> dict[str, float]:
    names = sorted({name for t in valid for name in t.metrics})
    means = {name: _mean(t.metrics.get(name, 0.0) for t in valid) for name in names}
    if "tool_calls" in means:
        means["called_tool"] = _mean(called_tool(t) for t in valid)
    return means


def _errors(played: Iterable[Trajectory]) -> dict[str, str]:
    found: dict[str, str] = {}
    for trajectory in played:
        if not scored(trajectory):
            found.setdefault(_ended(trajectory), trajectory.error or "")
    return found


def _ended(trajectory: Trajectory) -> str:
    return trajectory.outcome.value if trajectory.turns or trajectory.outcome.failed else UNPLAYED


def _sorted_counts(outcomes: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(outcomes).items()))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan
