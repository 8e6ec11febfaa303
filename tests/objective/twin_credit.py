"""The slow, obvious twin of every credit and term: loops over turns and tokens, straight from the definitions.

It shares no code with agentrl.objective: it reads trajectories, not batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.trajectory import Group, Trajectory
from tests.objective.twin import mean, std


@dataclass
class Step:
    """One turn: what it earned, and for each of its tokens the penalty there and the value before it."""

    reward: float
    penalties: list[float]
    values: list[float]
    state: str | None
    node: str | None
    measured: float | None


def steps_of(trajectory: Trajectory, penalties: Sequence[float], values: Sequence[float]) -> list[Step]:
    """The trajectory's turns; `penalties` and `values` are those of its action tokens, in order."""
    steps, at = [], 0
    for turn in trajectory.turns:
        n = turn.span.stop - turn.span.start
        mine = slice(at, at + n)
        reward = sum(turn.rewards.values())
        step = Step(reward, list(penalties[mine]), list(values[mine]), turn.state_id, turn.node_id, turn.value)
        steps.append(step)
        at += n
    return steps


def token_rewards(steps: Sequence[Step]) -> list[float]:
    """A turn's reward stands on its last token, or else on the last one before it."""
    out: list[float] = []
    for step in steps:
        out += step.penalties
        if out:
            out[-1] += step.reward
    return out


def turn_total(step: Step) -> float:
    return step.reward + sum(step.penalties)


def outcome(steps: Sequence[Step]) -> list[float]:
    return [sum(turn_total(s) for s in steps)] * len(steps)


def rtg_token(steps: Sequence[Step], gamma: float) -> list[float]:
    rewards = token_rewards(steps)
    return [sum(gamma ** (j - t) * rewards[j] for j in range(t, len(rewards))) for t in range(len(rewards))]


def rtg_turn(steps: Sequence[Step], gamma: float) -> list[float]:
    n = len(steps)
    return [sum(gamma ** (j - k) * turn_total(steps[j]) for j in range(k, n)) for k in range(n)]


def gae_token(steps: Sequence[Step], gamma: float, lam: float) -> list[float]:
    """The textbook's: advantages from temporal differences, then the values on top."""
    rewards = token_rewards(steps)
    values = [v for s in steps for v in s.values]
    out, advantage = [], 0.0
    for t in reversed(range(len(rewards))):
        following = values[t + 1] if t + 1 < len(values) else 0.0
        advantage = rewards[t] + gamma * following - values[t] + gamma * lam * advantage
        out.append(advantage + values[t])
    return out[::-1]


def gae_length(steps: Sequence[Step], gamma: float, alpha: float) -> list[float]:
    length = sum(len(s.values) for s in steps)
    return gae_token(steps, gamma, max(0.0, 1 - 1 / (alpha * length)) if length else 1.0)


def gae_turn(steps: Sequence[Step], gamma: float, lam: float) -> list[float]:
    """By its recursion; the return passes through a turn that has no token to be asked at."""

    def lambda_return(k: int) -> float:
        if k + 1 == len(steps):
            return turn_total(steps[k])
        following = lambda_return(k + 1)
        if steps[k + 1].values:
            following = (1 - lam) * steps[k + 1].values[0] + lam * following
        return turn_total(steps[k]) + gamma * following

    return [lambda_return(k) for k in range(len(steps))]


def gae_bilevel(steps: Sequence[Step], gamma: float, lam: float, gamma_hi: float, lam_hi: float) -> list[float]:
    """RAGEN's two loops, over the turns' ends and then over the tokens of each turn; every turn has tokens, none a
    penalty."""
    at_end, advantage = [0.0] * len(steps), 0.0
    for k in reversed(range(len(steps))):
        following = steps[k + 1].values[-1] if k + 1 < len(steps) else 0.0
        delta = steps[k].reward + gamma_hi * following - steps[k].values[-1]
        advantage = delta + gamma_hi * lam_hi * advantage
        at_end[k] = advantage + steps[k].values[-1]
    out = []
    for step, target in zip(steps, at_end, strict=True):
        advantage, mine = target - step.values[-1], [target]
        for t in reversed(range(len(step.values) - 1)):
            advantage = gamma * step.values[t + 1] - step.values[t] + gamma * lam * advantage
            mine.append(advantage + step.values[t])
        out += mine[::-1]
    return out


def mc_turn(steps: Sequence[Step], gamma: float) -> list[float]:
    def q(k: int) -> float:
        if k + 1 == len(steps):
            return turn_total(steps[k])
        measured = steps[k + 1].measured
        return turn_total(steps[k]) + gamma * (q(k + 1) if measured is None else measured)

    return [q(k) for k in range(len(steps))]


def tree(group: Sequence[Sequence[Step]]) -> list[list[float]]:
    """Of each turn of each trajectory of a group."""
    totals = [sum(turn_total(s) for s in steps) for steps in group]
    out = []
    for i, steps in enumerate(group):
        row = []
        for step in steps:
            sharing = [
                totals[j]
                for j, others in enumerate(group)
                if j == i or (step.node is not None and step.node in [o.node for o in others])
            ]
            row.append(mean(sharing))
        out.append(row)
    return out


def first_visit(steps: Sequence[Step], state: str | None) -> int | None:
    for k, step in enumerate(steps):
        if state is not None and step.state == state:
            return k
    return None


def state_pooled(group: Sequence[Sequence[Step]], gamma: float) -> list[list[float]]:
    """Of each turn of each trajectory of a group."""
    returns = [rtg_turn(steps, gamma) for steps in group]
    out = []
    for i, steps in enumerate(group):
        row = []
        for k, step in enumerate(steps):
            if k + 1 == len(steps):
                row.append(turn_total(step))
                continue
            seen = [returns[i][k + 1]]
            for j, others in enumerate(group):
                visit = first_visit(others, steps[k + 1].state)
                if j != i and visit is not None:
                    seen.append(returns[j][visit])
            row.append(turn_total(step) + gamma * mean(seen))
        out.append(row)
    return out


def state_values(group: Sequence[Sequence[Step]], gamma: float) -> list[list[float]]:
    """Of each turn of each trajectory of a group: single returns, averaged again and again over who shares a state."""
    values = [rtg_turn(steps, gamma) for steps in group]
    named = {step.state for steps in group for step in steps} - {None}
    nameless = sum(step.state is None for steps in group for step in steps)
    for _ in range(len(named) + nameless):
        values = [[_averaged(group, values, i, k, gamma) for k in range(len(steps))] for i, steps in enumerate(group)]
    return values


def _averaged(
    group: Sequence[Sequence[Step]], values: Sequence[Sequence[float]], i: int, k: int, gamma: float
) -> float:
    steps = group[i]
    if k + 1 == len(steps):
        return turn_total(steps[k])
    seen = [values[i][k + 1]]
    for j, others in enumerate(group):
        visit = first_visit(others, steps[k + 1].state)
        if j != i and visit is not None:
            seen.append(values[j][visit])
    return turn_total(steps[k]) + gamma * mean(seen)


def standing(x: float, peers: Sequence[float], *, divide: bool) -> float:
    centred = x - mean(peers)
    if not divide:
        return centred
    return centred / (std(peers) + 1e-6) if std(peers) > 1e-9 else 0.0


def history(steps: Sequence[Step], k: int, length: int) -> list[str | None]:
    return [s.state for s in steps[max(0, k - length + 1) : k + 1]]


def anchor_state(group: Sequence[Sequence[Step]], gamma: float, *, divide: bool, length: int) -> list[list[float]]:
    returns = [rtg_turn(steps, gamma) for steps in group]
    out = []
    for i, steps in enumerate(group):
        row = []
        for k in range(len(steps)):
            mine = history(steps, k, length)
            peers = [
                returns[j][m]
                for j, others in enumerate(group)
                for m in range(len(others))
                if (i, k) == (j, m) or (None not in mine and mine == history(others, m, length))
            ]
            row.append(standing(returns[i][k], peers, divide=divide))
        out.append(row)
    return out


def turn_relative(group: Sequence[Sequence[float]], *, divide: bool, last: bool) -> list[list[float]]:
    """`group`: what each turn of each trajectory earned."""
    out = []
    for rewards in group:
        row = []
        for k, reward in enumerate(rewards):
            peers = [others[k] for others in group if k < len(others)]
            row.append(0.0 if k + 1 == len(rewards) and not last else standing(reward, peers, divide=divide))
        out.append(row)
    return out


def tree_intra(group: Sequence[Sequence[Step]], *, divide: bool) -> list[float]:
    totals = [sum(turn_total(s) for s in steps) for steps in group]
    out = []
    for i, steps in enumerate(group):
        root = steps[0].node
        peers = [totals[j] for j, others in enumerate(group) if j == i or (root is not None and others[0].node == root)]
        out.append(standing(totals[i], peers, divide=divide))
    return out


def groups_of_steps(
    groups: Sequence[Group], penalties: Sequence[float], values: Sequence[float]
) -> list[list[list[Step]]]:
    """Groups, trajectories, turns; `penalties` and `values` are those of all action tokens, in order."""
    out, at = [], 0
    for group in groups:
        made = []
        for trajectory in group.trajectories:
            n = sum(turn.span.stop - turn.span.start for turn in trajectory.turns)
            made.append(steps_of(trajectory, penalties[at : at + n], values[at : at + n]))
            at += n
        out.append(made)
    return out
