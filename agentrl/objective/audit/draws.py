"""Every batch that a step can meet, with its chance.

What comes in: the episodes of one task or more, and the group size. What goes out: groups and the probability that they
are sampled. Groups hold independent episodes, or the branches of trees. An estimator does not ask in which order a
group's members stand, so each multiset is drawn once, with the chance of all its orders. Knows no estimator.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from agentrl.objective.audit.cast import Cast, Column
from agentrl.objective.batch import Batch, Float64Array
from agentrl.trajectory import Group, Trajectory


@dataclass(frozen=True, slots=True)
class Draw:
    chance: float
    groups: tuple[Group, ...]


@dataclass(frozen=True, eq=False)
class Setting:
    """A way to sample a batch, and all batches it can give."""

    name: str
    casts: tuple[Cast, ...]  # one a task; each task has its own part of the parameters
    draws: tuple[Draw, ...]  # their chances sum to 1

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """Of each draw, where nothing filters it."""
        return tuple(Batch.from_groups(draw.groups) for draw in self.draws)

    @cached_property
    def size(self) -> int:
        """D, the parameters of all tasks."""
        return sum(len(cast.policies.now.logits) for cast in self.casts)

    @cached_property
    def _columns(self) -> Mapping[str, Mapping[Column, tuple[Float64Array, ...]]]:
        """By task, with scores in all tasks' parameters."""
        out, before = {}, 0
        for cast in self.casts:
            width = len(cast.policies.now.logits)
            around = ((0, 0), (before, self.size - before - width))
            out[cast.name] = {**cast.columns, "scores": tuple(np.pad(x, around) for x in cast.columns["scores"])}
            before += width
        return out

    def column(self, batch: Batch, name: Column) -> Float64Array:
        """[A] or [A, D] of a batch's action tokens."""
        return np.concatenate([self._columns[t.task_id][name][t.seed] for t in batch.trajectories])

    def gradient(self, returns: Sequence[Float64Array]) -> Float64Array:
        """[D] of the mean over tasks of E[R], given the return of each episode of each task."""
        parts = [cast.gradient(r) for cast, r in zip(self.casts, returns, strict=True)]
        return np.concatenate(parts) / len(parts)


def one_task(cast: Cast, size: int) -> Setting:
    """One group of `size` independent episodes."""
    draws = tuple(Draw(chance, (group,)) for chance, group in groups_of(cast, size))
    return Setting(f"{cast.name}, G = {size}", (cast,), draws)


def two_tasks(first: Cast, second: Cast, size: int) -> Setting:
    """A group of each of two tasks."""
    pairs = itertools.product(groups_of(first, size), groups_of(second, size))
    draws = tuple(Draw(p * q, (a, b)) for (p, a), (q, b) in pairs)
    return Setting(f"{first.name} and {second.name}, G = {size}", (first, second), draws)


def groups_of(cast: Cast, size: int) -> list[tuple[float, Group]]:
    """Every multiset of `size` episodes, and its chance."""
    out = []
    for members in itertools.combinations_with_replacement(range(len(cast.episodes)), size):
        chance = orders(members) * math.prod(float(cast.chances[m]) for m in members)
        out.append((chance, _group(cast, [cast.trajectories[m] for m in members])))
    return out


def forest(cast: Cast, trees: int, branches: int) -> Setting:
    """One group of `trees` independent trees: a first turn is sampled once and continued `branches` times.

    An episode that is over after its first turn stands in the group `branches` times.
    """
    grown = list(_trees(cast, branches))
    draws = []
    for members in itertools.combinations_with_replacement(range(len(grown)), trees):
        chance = orders(members) * math.prod(grown[m][0] for m in members)
        leaves = [leaf for tree, m in enumerate(members) for leaf in _leaves(cast, grown[m][1], tree)]
        draws.append(Draw(chance, (_group(cast, leaves),)))
    return Setting(f"{cast.name}, {trees} tree{'s' if trees > 1 else ''} of {branches} branches", (cast,), tuple(draws))


def orders(members: Sequence[int]) -> int:
    """In how many orders a multiset can be drawn."""
    return math.factorial(len(members)) // math.prod(map(math.factorial, Counter(members).values()))


def _trees(cast: Cast, branches: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Chance and episodes of every tree: a first turn, and a multiset of continuations."""
    by_first: dict[int, list[int]] = {}
    for i, steps in enumerate(cast.episodes):
        first = next((j for j, others in by_first.items() if cast.episodes[others[0]][0] == steps[0]), i)
        by_first.setdefault(first, []).append(i)
    for episodes in by_first.values():
        root = float(sum(cast.chances[e] for e in episodes))
        for members in itertools.combinations_with_replacement(episodes, branches):
            chance = orders(members) * math.prod(float(cast.chances[m]) / root for m in members)
            yield root * chance, members


def _leaves(cast: Cast, members: Sequence[int], tree: int) -> Iterator[Trajectory]:
    for leaf, m in enumerate(members):
        trajectory = cast.trajectories[m]
        nodes = [f"{tree}" if k == 0 else f"{tree}.{leaf}.{k}" for k in range(len(trajectory.turns))]
        turns = tuple(replace(turn, node_id=node) for turn, node in zip(trajectory.turns, nodes, strict=True))
        yield replace(trajectory, turns=turns)


def _group(cast: Cast, members: Sequence[Trajectory]) -> Group:
    return Group(cast.name, cast.name, tuple(members), greedy=cast.trajectories[cast.likeliest])
