"""Baselines kept from step to step: what a task, or the run, has earned so far.

What comes in: the returns of a step that is over. What goes out: a mean or a chance of success for the next one; a step
is scored before its returns are counted, so they do not depend on what they are taken off. Needs no group. Knows no
critic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.component import at_least, within
from agentrl.objective.memory import Finished
from agentrl.objective.reward_side.base import Baseline, Scope
from agentrl.objective.reward_side.groups import EQUAL
from agentrl.objective.reward_side.levels import Level, Leveled, sums_by
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, total_returns
from agentrl.trajectory import IntArray

DRIFT = "drift"  # beside the tasks' numbers, whose names all hold a ":"
MOST_TASKS = 20_000  # remembered: procedural tasks never come back, and a memory is saved with every checkpoint


@dataclass(frozen=True, slots=True)
class Ema(Baseline):
    """b = running mean of R, over the whole run or for each task; 0 at first (RAE, 2506.24119).

    After a step with n returns, b <- decay^n b + (1 - decay^n) mean(R): prime-rl's update once a trajectory, without
    its dependence on their order.
    """

    decay: float = 0.95
    per: Literal["run", "task"] = "run"
    key: ClassVar[str] = "ema"
    scope: ClassVar[Scope] = "own"

    def __post_init__(self) -> None:
        within("baseline 'ema'", 0.0, 1.0, decay=self.decay)

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        memory = x.memory.get(self.key, {})
        names, owner = self._owners(x.batch)
        return Leveled(Level.TRAJECTORY, np.array([memory.get(name, 0.0) for name in names], np.float64)[owner])

    def remember(self, step: Finished) -> Mapping[str, float]:
        """The means as they stand now."""
        memory = dict(step.memory.get(self.key, {}))
        names, owner = self._owners(step.batch)
        counts = np.bincount(owner, minlength=len(names))
        sums = sums_by(owner, step.returns, len(names))
        for name, n, total in zip(names, counts.tolist(), sums.tolist(), strict=True):
            kept = self.decay**n
            memory[name] = kept * memory.pop(name, 0.0) + (1 - kept) * total / n
        return latest(memory, MOST_TASKS)

    def _owners(self, batch: Batch) -> tuple[list[str], IntArray]:
        if self.per == "task":
            return by_task(batch)
        return (["run"] if batch.n_trajectories else []), np.zeros(batch.n_trajectories, np.int64)


@dataclass(frozen=True, slots=True)
class BetaTracker(Baseline):
    """b = a/(a + b), a task's chance of success under a Beta(a, b) that starts at (1/2, 1/2) (SPO, 2509.13232).

    After a step with returns R in [0, 1], a <- rho a + sum R and b <- rho b + sum (1 - R) with rho = 2^(-D/half_life)
    clipped to [rho_min, rho_max]: the further the policy has drifted (D) since the task was last seen, the sooner the
    past is forgotten. D adds up the mean |log pi - log pi_old| that each update reports; verl's recipe measures it anew
    on the task's last response. With one update a batch nothing is reported, and rho is rho_max.
    """

    rho_min: float = 0.875
    rho_max: float = 0.96
    half_life: float = 0.06
    key: ClassVar[str] = "beta_tracker"
    scope: ClassVar[Scope] = "own"

    def __post_init__(self) -> None:
        within("baseline 'beta_tracker'", 0.0, 1.0, rho_max=self.rho_max)
        within("baseline 'beta_tracker'", 0.0, self.rho_max, rho_min=self.rho_min)
        at_least("baseline 'beta_tracker'", 1e-12, half_life=self.half_life)

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        _check_successes(total_returns(x.batch, rewards))
        memory = x.memory.get(self.key, {})
        names, owner = by_task(x.batch)
        beliefs = np.array([_belief(memory, name) for name in names], np.float64).reshape(-1, 2)
        return Leveled(Level.TRAJECTORY, (beliefs[:, 0] / beliefs.sum(1))[owner])

    def remember(self, step: Finished) -> Mapping[str, float]:
        """Each task's a and b, the drift when it was last seen, and the drift of the whole run."""
        memory = dict(step.memory.get(self.key, {}))
        drift = memory.get(DRIFT, 0.0)  # of the updates before this step's
        names, owner = by_task(step.batch)
        successes = sums_by(owner, step.returns, len(names))
        failures = np.bincount(owner, minlength=len(names)) - successes
        for name, right, wrong in zip(names, successes.tolist(), failures.tolist(), strict=True):
            a, b = _belief(memory, name)
            since = drift - memory.get(f"{name}:seen", drift)
            rho = min(max(2 ** (-since / self.half_life), self.rho_min), self.rho_max)
            now = {f"{name}:a": rho * a + right, f"{name}:b": rho * b + wrong, f"{name}:seen": drift}
            for key in now:
                memory.pop(key, None)
            memory |= now
        memory.pop(DRIFT, None)
        return {**latest(memory, 3 * MOST_TASKS), DRIFT: drift + step.metrics.get("old_abs", 0.0)}


def latest(memory: dict[str, float], most: int) -> dict[str, float]:
    """The last `most` entries: those written last."""
    return dict(list(memory.items())[-most:])


def by_task(batch: Batch) -> tuple[list[str], IntArray]:
    """The batch's task ids, and [T] the index of each trajectory's among them."""
    ids: dict[str, int] = {}
    owner = [ids.setdefault(t.task_id, len(ids)) for t in batch.trajectories]
    return list(ids), np.array(owner, np.int64)


def _belief(memory: Mapping[str, float], task: str) -> tuple[float, float]:
    return memory.get(f"{task}:a", 0.5), memory.get(f"{task}:b", 0.5)


def _check_successes(returns: Float64Array) -> None:
    outside = (returns < -EQUAL) | (returns > 1 + EQUAL)
    if outside.any():
        raise ConfigError(
            f"baseline 'beta_tracker' counts successes, so returns must be in [0, 1], got {returns[outside][0]:g}: set "
            "shape = 'threshold' (and no penalty in the reward), or baseline = {name = 'ema', per = 'task'}"
        )
