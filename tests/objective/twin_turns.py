"""The slow, obvious twin of what compares turns: loops over a list of turns, straight from the definitions.

It shares no code with agentrl.objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.objective.twin import mean, std


@dataclass
class Move:
    """One turn: whose it is, where it began, and what it is credited with."""

    group: int
    trajectory: int
    index: int
    state: str | None
    credit: float
    total: float  # whole return of its trajectory


def same_state(a: Move, b: Move) -> bool:
    return a.group == b.group and (a is b or (a.state is not None and a.state == b.state))


def same_index(a: Move, b: Move) -> bool:
    return a.group == b.group and a.index == b.index


def baseline(name: str, move: Move, moves: Sequence[Move], totals: Sequence[tuple[int, int, float]]) -> float:
    """What is taken off one turn's credit. `totals`: (group, trajectory, return) of every trajectory."""
    at_index = [m for m in moves if same_index(m, move)]
    in_state = [m for m in moves if same_state(m, move)]
    others_at_index = [m.credit for m in at_index if m.trajectory != move.trajectory]
    if name == "turn_mean":
        return mean([m.credit for m in at_index])
    if name == "group_turn_mean":
        return mean([m.credit for m in moves if m.group == move.group])
    if name == "state_mean":
        shared = any(m.trajectory != move.trajectory for m in in_state)
        return mean([m.credit for m in in_state]) if shared else move.credit
    first: dict[int, Move] = {}
    for m in in_state if name == "state_leave_one_out" else ():
        if m.trajectory != move.trajectory and (m.trajectory not in first or m.index < first[m.trajectory].index):
            first[m.trajectory] = m
    if first:
        return mean([m.credit for m in first.values()])
    if others_at_index:
        return mean(others_at_index)
    whole = [r for g, t, r in totals if g == move.group and t != move.trajectory]
    return mean(whole) if whole else move.credit


def spread(name: str, i: int, centred: Sequence[float], moves: Sequence[Move]) -> float:
    """The std that turn i's centred credit is divided by."""
    alike = {
        "turn_std": same_index,
        "state_std": same_state,
        "group_turn_std": lambda a, b: a.group == b.group,
    }[name]
    return std([c for c, m in zip(centred, moves, strict=True) if alike(m, moves[i])])


def advantages(
    moves: Sequence[Move], totals: Sequence[tuple[int, int, float]], base: str, scale: str, eps: float = 1e-6
) -> list[float]:
    """The advantage of every turn."""
    sizes = {g: sum(h == g for h, _, _ in totals) for g, _, _ in totals}
    alone = [sizes[m.group] == 1 for m in moves]
    centred = [0.0 if a else m.credit - baseline(base, m, moves, totals) for m, a in zip(moves, alone, strict=True)]
    if scale == "none":
        return centred
    spreads = [spread(scale, i, centred, moves) for i in range(len(moves))]
    return [c / (s + eps) if s > 1e-9 else 0.0 for c, s in zip(centred, spreads, strict=True)]


def whiten_sequences(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Mean 0 and std 1 where each row counts once and the numbers in it equally."""
    rows_with = [row for row in rows if row]
    middle = mean([mean(row) for row in rows_with])
    squares = sum(mean([(x - middle) ** 2 for x in row]) for row in rows_with)
    deviation = (squares / max(len(rows_with) - 1, 1)) ** 0.5
    return [[(x - middle) / (deviation + 1e-8) for x in row] for row in rows]
