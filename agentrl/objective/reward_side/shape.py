"""Slot `shape`: which reward each turn is given.

What comes in: a batch. What goes out: [K] one reward for each turn. Knows no baseline and no token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agentrl.objective.batch import Batch, Float64Array


class Shape(Protocol):
    def __call__(self, batch: Batch) -> Float64Array:
        """[K] the reward of each turn."""
        ...


@dataclass(frozen=True, slots=True)
class OutcomeShape:
    """r_k = sum of all reward parts of turn k, outcome and process alike, as the environment weighted them."""

    def __call__(self, batch: Batch) -> Float64Array:
        return batch.turn_rewards


SHAPES: Mapping[str, type] = {"outcome": OutcomeShape}
