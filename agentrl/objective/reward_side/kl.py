"""Slot `kl_in_reward`: what is taken off each token's reward for leaving the reference.

What comes in: a batch and the scores of the policy and of the reference. What goes out: [A] a reward for each action
token, or None. The penalty is a number here: no gradient flows through it (slot `regularize` is where one does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Float64Array
from agentrl.objective.component import at_least
from agentrl.objective.reward_side.base import KlInReward
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
        if x.scores.logprobs is None or x.scores.reference is None:
            raise ConfigError(
                f"kl_in_reward 'k1' with beta {self.beta:g} needs log-probs of the policy and of a reference; give the "
                "learner a reference, or set beta = 0"
            )
        mask = x.batch.action_mask
        return -self.beta * (x.scores.logprobs[mask].astype(np.float64) - x.scores.reference[mask])


KLS_IN_REWARD: Mapping[str, type] = {"k1": K1InReward}
