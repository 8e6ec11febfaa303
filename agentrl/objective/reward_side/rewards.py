"""The rewards of a batch on their way to credit.

What comes in: the named parts of each turn's reward, as the environment weighted them. What goes out: one number for
each turn, and, with a penalty in the reward, one for each action token. Knows no credit and no baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np

from agentrl.objective.batch import Batch, Float64Array, Memory, Scores
from agentrl.objective.reward_side.levels import Level, Leveled, sum_by_trajectory, sums_of_runs
from agentrl.trajectory import RewardKind

Which = Literal["all", "outcome", "process", "none"]


@dataclass(frozen=True, slots=True)
class RewardInputs:
    """What every component of the reward side may read."""

    batch: Batch
    scores: Scores
    memory: Memory


@dataclass(frozen=True, slots=True)
class Parts:
    """The named parts of every turn's reward; a name an environment gives to some turns only is 0 at the others."""

    names: tuple[str, ...]  # P
    kinds: tuple[RewardKind, ...]  # P
    values: Float64Array  # [K, P]

    @classmethod
    def of(cls, batch: Batch) -> Parts:
        """The batch's own parts, names in alphabetical order."""
        kinds = {name: kind for t in batch.trajectories for name, kind in t.reward_kinds.items()}
        rewards = [turn.rewards for turn in batch.turns]
        given = list(chain.from_iterable(rewards))  # names, turn after turn
        names = sorted(set(given))
        column = {name: p for p, name in enumerate(names)}
        values = np.zeros((len(rewards), len(names)))
        at = np.repeat(np.arange(len(rewards)), np.fromiter(map(len, rewards), np.int64, len(rewards)))
        of = np.fromiter(map(column.__getitem__, given), np.int64, len(given))
        values[at, of] = np.fromiter(chain.from_iterable(r.values() for r in rewards), np.float64, len(given))
        return cls(tuple(names), tuple(kinds.get(name, "outcome") for name in names), values)

    def plus(self, name: str, kind: RewardKind, values: Float64Array) -> Parts:
        """With one more part, [K]."""
        return replace(
            self,
            names=(*self.names, name),
            kinds=(*self.kinds, kind),
            values=np.column_stack([self.values, values]),
        )

    def sum(self, which: Which) -> Float64Array:
        """[K] sum of the parts of a kind."""
        chosen = [which in ("all", kind) for kind in self.kinds]
        out: Float64Array = self.values[:, chosen].sum(1)
        return out


@dataclass(frozen=True, slots=True)
class Rewards:
    """What is to be credited."""

    turns: Float64Array  # [K]
    tokens: Float64Array | None = None  # [A] added at each action token; None: nothing is
    parts: Parts | None = None  # what `turns` is the sum of, where a component asked for it

    def only(self, which: Which) -> Rewards:
        """Of these parts only; a penalty at tokens stays."""
        if which == "all" or self.parts is None:
            return self
        return replace(self, turns=self.parts.sum(which))


def total_returns(batch: Batch, rewards: Rewards) -> Float64Array:
    """[T] undiscounted return of each trajectory. One without any turn keeps the environment's reward."""
    totals = sum_by_trajectory(batch, Leveled(Level.TURN, rewards.turns))
    without_turns = batch.turn_counts == 0
    totals[without_turns] = batch.rewards[without_turns]
    if rewards.tokens is not None:
        totals += sum_by_trajectory(batch, Leveled(Level.ACTION, rewards.tokens))
    return totals


def token_rewards(batch: Batch, rewards: Rewards) -> Float64Array:
    """[A] rewards at action tokens: each turn's on its last one.

    The reward of a turn without tokens lands on the last action token before it in its trajectory; where there is none,
    no action led to it and no token gets it.
    """
    out = np.zeros(int(batch.turn_lengths.sum())) if rewards.tokens is None else rewards.tokens.copy()
    last = np.cumsum(batch.turn_lengths) - 1  # [K] in action tokens; an empty turn points at the token before it
    first_of_trajectory = np.cumsum(batch.action_counts) - batch.action_counts
    acting = batch.turn_lengths > 0
    out[last[acting]] += rewards.turns[acting]
    led_to = ~acting & (last >= first_of_trajectory[batch.turn_trajectory])
    np.add.at(out, last[led_to], rewards.turns[led_to])
    return out


def turn_rewards(batch: Batch, rewards: Rewards) -> Float64Array:
    """[K] reward of each turn, penalties at its tokens included."""
    if rewards.tokens is None:
        return rewards.turns
    return rewards.turns + sums_of_runs(batch.turn_lengths, rewards.tokens)


def join(parts: Sequence[Float64Array]) -> Float64Array | None:
    """The sum of penalties at tokens; None where there is none."""
    return np.sum(parts, axis=0) if parts else None
