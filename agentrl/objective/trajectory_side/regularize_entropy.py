"""Entropy bonuses.

What comes in: [A] entropies of the distributions that the action tokens were chosen from, with gradient. What goes out:
[A] a penalty, negative where entropy is rewarded. Knows no advantage and no log-prob.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.errors import ConfigError
from agentrl.objective.batch import Memory
from agentrl.objective.component import at_least, within
from agentrl.objective.memory import Finished
from agentrl.objective.trajectory_side.base import Regularizer
from agentrl.objective.trajectory_side.inputs import LossInputs

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_COEF = 1.0  # of the adaptive bonus, as in TRL


@dataclass(frozen=True, slots=True)
class Entropy(Regularizer):
    """-coef H_t, in nats: the entropy bonus of A3C (1602.01783) and PPO (1707.06347)."""

    coef: float
    needs_entropy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("regularize 'entropy'", 0.0, coef=self.coef)

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        return -self.coef * entropies("entropy", inputs) if self.coef > 0 else None


@dataclass(frozen=True, slots=True)
class AdaptiveEntropy(Regularizer):
    """-c H_t where the step before had a mean entropy H <= target, else nothing; after each step c <- c + step where
    H <= target, else c - step, within [0, 1] (Skywork-OR1, 2505.22312; bounds and timing are TRL's).

    The first step has no bonus: nothing is known of H. target is in nats a token.
    """

    target: float
    step: float = 0.005
    initial: float = 0.0
    key: ClassVar[str] = "adaptive_entropy"
    needs_entropy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("regularize 'adaptive_entropy'", 0.0, target=self.target, step=self.step)
        within("regularize 'adaptive_entropy'", 0.0, LARGEST_COEF, initial=self.initial)

    def __call__(self, inputs: LossInputs) -> Tensor | None:
        coef, entropy = self._state(inputs.memory)
        return -coef * entropies("adaptive_entropy", inputs) if coef > 0 and entropy <= self.target else None

    def remember(self, step: Finished) -> Mapping[str, float]:
        """The coefficient and the entropy that decides whether it applies; a step without any loss token changes
        neither."""
        coef, entropy = self._state(step.memory)
        if "entropy" in step.metrics:
            entropy = step.metrics["entropy"]
            coef += self.step if entropy <= self.target else -self.step
        known = {"entropy": entropy} if math.isfinite(entropy) else {}
        return {"coef": min(max(coef, 0.0), LARGEST_COEF), **known}

    def _state(self, memory: Memory) -> tuple[float, float]:
        mine = memory.get(self.key, {})
        return mine.get("coef", self.initial), mine.get("entropy", float("inf"))


def entropies(name: str, inputs: LossInputs) -> Tensor:
    """[A]

    Raises:
        ConfigError: there are none.
    """
    if inputs.entropies is None:
        raise ConfigError(f"regularize {name!r} needs entropies with their gradient; the learner gave none")
    return inputs.entropies
