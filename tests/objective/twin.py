"""The slow, obvious twin of the reward side: plain Python, one token at a time, straight from the formulas.

It shares no code with agentrl.objective: it reads trajectories, not batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentrl.trajectory import Group, Trajectory


def action_tokens(trajectory: Trajectory) -> list[tuple[int, int, int]]:
    """(turn, segment, position) of each action token, in order."""
    return [
        (k, turn.segment, t) for k, turn in enumerate(trajectory.turns) for t in range(turn.span.start, turn.span.stop)
    ]


def token_rewards(trajectory: Trajectory, penalties: Sequence[float]) -> list[float]:
    """Penalty at each action token, and each turn's reward on the turn's last one."""
    tokens = action_tokens(trajectory)
    out = list(penalties)
    for k, turn in enumerate(trajectory.turns):
        mine = [i for i, (of, _, _) in enumerate(tokens) if of == k]
        out[mine[-1]] += sum(turn.rewards.values())
    return out


def credit(trajectory: Trajectory, penalties: Sequence[float], kind: str, gamma: float) -> list[float]:
    """The credit of each action token."""
    tokens = action_tokens(trajectory)
    rewards = token_rewards(trajectory, penalties)
    if kind == "outcome_broadcast":
        return [sum(rewards)] * len(tokens)
    if kind == "rtg_token":
        return [sum(gamma ** (j - t) * rewards[j] for j in range(t, len(tokens))) for t in range(len(tokens))]
    of_turn = [
        sum(r for r, (k, _, _) in zip(rewards, tokens, strict=True) if k == j) for j in range(len(trajectory.turns))
    ]
    returns = [sum(gamma ** (j - k) * of_turn[j] for j in range(k, len(of_turn))) for k in range(len(of_turn))]
    return [returns[k] for k, _, _ in tokens]


def mean(xs: Sequence[float]) -> float:
    return sum(xs) / len(xs)


def std(xs: Sequence[float]) -> float:
    return math.sqrt(sum((x - mean(xs)) ** 2 for x in xs) / (len(xs) - 1)) if len(xs) > 1 else 0.0


def second_best(xs: Sequence[float], i: int) -> float:
    """What to take off x_i so that only the first of the largest keeps something."""
    best = max(range(len(xs)), key=lambda j: (xs[j], -j))
    return sorted(xs)[-2] if i == best and len(xs) > 1 else xs[i]


def group_scale(scale: str, totals: Sequence[float], of_group: Sequence[float], mixed: int) -> float:
    """What a trajectory's centred credit is multiplied by; `mixed`: trajectories in groups of unequal returns."""
    if scale == "group_std":
        return 1 / (std(of_group) + 1e-6)
    if scale == "batch_std":
        return 1 / (std(totals) + 1e-6)
    if scale == "group_mean":
        return 1 / mean(of_group) if mean(of_group) > 1e-9 else 0.0
    if scale == "nonzero_frac":
        return len(totals) / mixed if mixed else 0.0
    return 1.0


def whiten_tokens(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Mean 0 and std 1 over all numbers."""
    flat = [x for row in rows for x in row]
    return [[(x - mean(flat)) / (std(flat) + 1e-8) for x in row] for row in rows]


GROUP_BASELINES = ("group_mean", "leave_one_out", "len_weighted", "second_best")
GROUP_SCALES = ("group_std", "group_mean", "nonzero_frac")


def advantages(
    groups: Sequence[Group],
    penalties: Sequence[Sequence[float]],
    *,
    kind: str,
    gamma: float,
    baseline: str,
    scale: str,
) -> list[list[float]]:
    """The advantage of each action token of each trajectory; `penalties` are added to the tokens' rewards."""
    flat = [(g, t) for g, group in enumerate(groups) for t in group.trajectories]
    totals = [t.reward + sum(p) for (_, t), p in zip(flat, penalties, strict=True)]
    members = [[j for j, (h, _) in enumerate(flat) if h == g] for g in range(len(groups))]
    mixed = sum(len(m) for m in members if max(totals[j] for j in m) - min(totals[j] for j in m) > 1e-9)
    out = []
    for i, (g, trajectory) in enumerate(flat):
        of_group = [totals[j] for j in members[g]]
        others = [totals[j] for j in members[g] if j != i]
        lengths = [len(action_tokens(flat[j][1])) for j in members[g]]
        base = {
            "none": 0.0,
            "batch_mean": mean(totals),
            "group_mean": mean(of_group),
            "leave_one_out": mean(others) if others else totals[i],
            "len_weighted": sum(n * r for n, r in zip(lengths, of_group, strict=True)) / sum(lengths),
            "second_best": second_best(of_group, members[g].index(i)),
        }[baseline]
        factor = group_scale(scale, totals, of_group, mixed)
        alone = len(of_group) == 1 and (baseline in GROUP_BASELINES or scale in GROUP_SCALES)
        credits = credit(trajectory, penalties[i], kind, gamma)
        out.append([0.0 if alone else (c - base) * factor for c in credits])
    return whiten_tokens(out) if scale == "whiten" else out
