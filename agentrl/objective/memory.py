"""What an objective remembers from step to step.

What comes in: a step that is over. What goes out: numbers, by component, for the next one. Most components are pure and
remember nothing; adaptive coefficients and running baselines do. A memory is a plain value: it is saved with the
checkpoint and never written into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from agentrl.objective.batch import Batch, Float64Array, Memory, Scores


@dataclass(frozen=True, slots=True)
class Finished:
    """A step whose update has been made."""

    batch: Batch
    scores: Scores
    returns: Float64Array  # [T] shaped return of each trajectory, of the parts that are credited
    memory: Memory  # as the step began
    metrics: Mapping[str, float]  # of credit and update


@runtime_checkable
class Remembers(Protocol):
    """A component with a memory of its own, under `key`; an absent key is the state before the first step."""

    key: ClassVar[str]

    def remember(self, step: Finished) -> Mapping[str, float]:
        """The component's numbers for the next step."""
        ...
