"""Episodes whose turns name their states, what their turns get, and drawn groups of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from agentrl.objective import Credited
from agentrl.trajectory import Group, Trajectory
from tests.objective.play import episode
from tests.objective.twin_turns import Move

REWARDS = st.sampled_from([0.0, 1.0, 0.5, -0.25])
STATES = st.sampled_from(["a", "b", "c", None])


def through(states: Sequence[str | None], rewards: Sequence[float], *, acted: int = 1, **more: object) -> Trajectory:
    """One episode: a turn of `acted` tokens in each state, with these rewards."""
    return named(episode([(1, acted, r) for r in rewards], **more), states)


def named(trajectory: Trajectory, states: Sequence[str | None]) -> Trajectory:
    """The episode with these states."""
    turns = [dataclasses.replace(t, state_id=s) for t, s in zip(trajectory.turns, states, strict=True)]
    return dataclasses.replace(trajectory, turns=tuple(turns))


def by_turn(credited: Credited) -> list[float | None]:
    """The advantage of each turn, which all its tokens must share; None for one without tokens."""
    out: list[float | None] = []
    for start, length in zip(credited.batch.turn_starts, credited.batch.turn_lengths, strict=True):
        values = set(credited.advantages[start : start + length].tolist())
        assert len(values) <= 1, values
        out.append(values.pop() if values else None)
    return out


def first_of_turns(credited: Credited) -> np.ndarray:
    """[K] the advantage of each turn's first token."""
    return credited.advantages[credited.batch.turn_starts]


@st.composite
def stateful_groups(draw: st.DrawFn, *, shortest_turn: int = 0, most_groups: int = 3) -> list[Group]:
    """Groups of one to four episodes; at least one turn has a state."""
    groups = []
    for g in range(draw(st.integers(1, most_groups))):
        played = []
        for i in range(draw(st.integers(1, 4))):
            steps = draw(st.lists(st.tuples(st.integers(shortest_turn, 3), REWARDS, STATES), min_size=1, max_size=4))
            cuts = [k for k in draw(st.sets(st.integers(1, 3))) if k < len(steps)]
            names = [s for _, _, s in steps]
            names[0] = names[0] if g or i else "a"
            turns = [(1, acted, r) for acted, r, _ in steps]
            played.append(named(episode(turns, group=str(g), seed=i, new_segment_at=cuts), names))
        groups.append(Group(str(g), f"task{g}", tuple(played)))
    return groups


def returns_to_go(trajectory: Trajectory, gamma: float) -> list[float]:
    """What each turn and those after it earned."""
    rewards = [sum(turn.rewards.values()) for turn in trajectory.turns]
    return [sum(gamma ** (j - k) * rewards[j] for j in range(k, len(rewards))) for k in range(len(rewards))]


def moves_of(groups: Sequence[Group], credits: Sequence[Sequence[float]]) -> list[Move]:
    """The turns of all episodes as the twin wants them."""
    flat = [(g, t) for g, group in enumerate(groups) for t in group.trajectories]
    return [
        Move(g, i, k, turn.state_id, credits[i][k], float(t.reward or 0.0))
        for i, (g, t) in enumerate(flat)
        for k, turn in enumerate(t.turns)
    ]


def totals_of(groups: Sequence[Group]) -> list[tuple[int, int, float]]:
    """(group, trajectory, return) of all episodes."""
    flat = [(g, t) for g, group in enumerate(groups) for t in group.trajectories]
    return [(g, i, float(t.reward or 0.0)) for i, (g, t) in enumerate(flat)]
