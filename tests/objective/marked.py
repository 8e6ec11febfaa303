"""Drawn groups whose turns have all marks that a credit can read, and what one credit or term makes of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from agentrl.objective import Batch, Scores
from agentrl.objective.component import build
from agentrl.objective.reward_side.credit import CREDITS
from agentrl.objective.reward_side.levels import Level, Leveled, refine
from agentrl.objective.reward_side.rewards import Parts, RewardInputs, Rewards
from agentrl.objective.reward_side.term import TERMS
from agentrl.trajectory import Group, Trajectory
from tests.objective import twin_credit
from tests.objective.turns import stateful_groups


@st.composite
def marked_groups(draw: st.DrawFn, *, shortest_turn: int = 0) -> list[Group]:
    """Groups of one to four episodes; turns have states, measured values and nodes, some of them none. Two episodes
    share their turns up to the smaller of their depths."""

    def mark(trajectory: Trajectory, index: int, first: bool) -> Trajectory:
        depth = draw(st.integers(0, 4))
        turns = []
        for k, turn in enumerate(trajectory.turns):
            marked = first and k == 0
            node = f"{k}" if k < depth else f"{k} of {index}"
            value = draw(st.sampled_from([None, 0.5, -1.0, 2.0]))
            turns.append(
                dataclasses.replace(
                    turn,
                    node_id=node if marked or draw(st.booleans()) else None,
                    value=1.5 if marked else value,
                    rewards={"step": turn.rewards["correct"], "correct": draw(st.sampled_from([0.0, 1.0]))},
                )
            )
        total = sum(sum(t.rewards.values()) for t in turns)
        return dataclasses.replace(trajectory, turns=tuple(turns), reward=total)

    groups = draw(stateful_groups(shortest_turn=shortest_turn))
    return [
        dataclasses.replace(g, trajectories=tuple(mark(t, i, i + n == 0) for i, t in enumerate(g.trajectories)))
        for n, g in enumerate(groups)
    ]


@dataclasses.dataclass
class Case:
    """A batch with drawn values and penalties, and its turns as the twin reads them."""

    batch: Batch
    scores: Scores
    penalties: np.ndarray  # [A]
    steps: list[list[list[twin_credit.Step]]]

    @classmethod
    def of(cls, groups: Sequence[Group], seed: int = 0, *, penalised: bool = False) -> Case:
        batch = Batch.from_groups(groups)
        rng = np.random.default_rng(seed)
        values = rng.normal(size=batch.n_tokens).astype(np.float32)
        penalties = rng.normal(size=int(batch.turn_lengths.sum())) * penalised
        steps = twin_credit.groups_of_steps(groups, penalties.tolist(), values[batch.action_mask].tolist())
        return cls(batch, Scores(values=values), penalties, steps)

    @property
    def inputs(self) -> RewardInputs:
        return RewardInputs(self.batch, self.scores, {})

    @property
    def rewards(self) -> Rewards:
        tokens = self.penalties if self.penalties.any() else None
        return Rewards(self.batch.turn_rewards, tokens, Parts.of(self.batch))

    def credit(self, name: str, **parameters: Any) -> np.ndarray:
        """[A] what each action token is credited with."""
        return self._at_tokens(build("credit", {"name": name, **parameters}, CREDITS)(self.inputs, self.rewards))

    def term(self, name: str, **parameters: Any) -> np.ndarray:
        """[A] what a term adds at each action token."""
        return self._at_tokens(build("terms", {"name": name, **parameters}, TERMS)(self.inputs, self.rewards))

    def _at_tokens(self, x: Leveled) -> np.ndarray:
        return refine(self.batch, x, Level.ACTION)


def at_tokens(steps: Sequence[twin_credit.Step], of_turns: Sequence[float]) -> list[float]:
    """The number of each turn at each of its tokens."""
    return [x for step, x in zip(steps, of_turns, strict=True) for _ in step.values]


def at_own_tokens(groups: Sequence[Sequence[Sequence[twin_credit.Step]]], rows: Mapping[int, Any]) -> list[float]:
    """The same for all trajectories; `rows[g][i]` are the numbers of trajectory i's turns."""
    return [
        x
        for g, group in enumerate(groups)
        for steps, row in zip(group, rows[g], strict=True)
        for x in at_tokens(steps, row)
    ]
