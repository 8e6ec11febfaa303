"""Slot `kl_in_reward`: what is added to each token's reward for staying near the reference, or near a teacher.

What comes in: a batch and the scores of the policy and of the reference or the teacher. What goes out: [A] a reward
for each action token, or None. It is a number here: no gradient flows through it (slot `regularize` is where one
does). It is part of the return, so baselines see it, as in verl; OpenRLHF adds it after the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Batch, Float64Array, Memory, Scores
from agentrl.objective.component import at_least
from agentrl.objective.memory import Finished
from agentrl.objective.reward_side.base import KlInReward
from agentrl.objective.reward_side.levels import Level, Leveled, sum_by_trajectory
from agentrl.objective.reward_side.rewards import RewardInputs


@dataclass(frozen=True, slots=True)
class K1InReward(KlInReward):
    """r_t += -beta (log pi(a_t) - log pi_ref(a_t)), a one-sample estimate of KL(pi, ref). beta 0: no reference."""

    beta: float = 0.03

    def __post_init__(self) -> None:
        at_least("kl_in_reward 'k1'", 0.0, beta=self.beta)

    @property
    def needs_reference(self) -> bool:
        return self.beta > 0

    def __call__(self, x: RewardInputs) -> Float64Array | None:
        if not self.needs_reference:
            return None
        return -self.beta * k1_to_reference("kl_in_reward 'k1'", x.batch, x.scores)


@dataclass(frozen=True, slots=True)
class AdaptiveK1InReward(KlInReward):
    """k1 with beta <- beta (1 + clip(KL/target - 1, -0.2, 0.2) n/horizon) after each step (1909.08593, section 2.2; the
    horizon is that of TRL's and verl's controllers).

    KL is the mean over trajectories of their mean k1 a token and n the number of trajectories, as in verl. n/horizon
    counts as 1 at most: beyond 5 the libraries' factor can turn beta negative.
    """

    initial: float = 0.2
    target: float = 0.1
    horizon: float = 10000.0
    key: ClassVar[str] = "adaptive_k1"

    def __post_init__(self) -> None:
        at_least("kl_in_reward 'adaptive_k1'", 1e-12, initial=self.initial, target=self.target, horizon=self.horizon)

    @property
    def needs_reference(self) -> bool:
        return True

    def __call__(self, x: RewardInputs) -> Float64Array | None:
        return -self._beta(x.memory) * k1_to_reference("kl_in_reward 'adaptive_k1'", x.batch, x.scores)

    def remember(self, step: Finished) -> Mapping[str, float]:
        """The coefficient of the next step."""
        batch, beta = step.batch, self._beta(step.memory)
        acting = batch.action_counts > 0
        n = int(acting.sum())
        if n == 0:
            return {"beta": beta}
        k1 = k1_to_reference("kl_in_reward 'adaptive_k1'", batch, step.scores)
        sums = sum_by_trajectory(batch, Leveled(Level.ACTION, k1))
        kl = float(np.mean(sums[acting] / batch.action_counts[acting]))
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return {"beta": beta * (1 + error * min(n / self.horizon, 1.0))}

    def _beta(self, memory: Memory) -> float:
        return memory.get(self.key, {}).get("beta", self.initial)


@dataclass(frozen=True, slots=True)
class TeacherInReward(KlInReward):
    """r_t += coef (log pi_T(a_t) - log pi(a_t)), T a teacher: on-policy distillation (2306.08543; MiniLLM's return is
    the undiscounted sum of it from t on, and discount 0 makes each token answer for itself). coef 0: no teacher."""

    coef: float = 1.0

    def __post_init__(self) -> None:
        at_least("kl_in_reward 'teacher'", 0.0, coef=self.coef)

    @property
    def needs_teacher(self) -> bool:
        return self.coef > 0

    def __call__(self, x: RewardInputs) -> Float64Array | None:
        if not self.needs_teacher:
            return None
        if x.scores.logprobs is None or x.scores.teacher is None:
            raise ConfigError(
                "kl_in_reward 'teacher' needs log-probs of the policy and of a teacher; give the learner a teacher, or "
                "set coef = 0"
            )
        mask = x.batch.action_mask
        return self.coef * (x.scores.teacher[mask].astype(np.float64) - x.scores.logprobs[mask])


def k1_to_reference(owner: str, batch: Batch, scores: Scores) -> Float64Array:
    """[A] log pi - log pi_ref at action tokens, nats.

    Raises:
        ConfigError: one of them is absent; `owner` is who asks.
    """
    if scores.logprobs is None or scores.reference is None:
        raise ConfigError(
            f"{owner} needs log-probs of the policy and of a reference; give the learner a reference, or take it out "
            "of objective.kl_in_reward"
        )
    mask = batch.action_mask
    out: Float64Array = scores.logprobs[mask].astype(np.float64) - scores.reference[mask]
    return out


KLS_IN_REWARD: Mapping[str, type] = {
    "k1": K1InReward,
    "adaptive_k1": AdaptiveK1InReward,
    "teacher": TeacherInReward,
}
