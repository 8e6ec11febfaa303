"""What a run plays: which tasks, how often, with which seeds.

What comes in: the tasks, the run's seed, sizes. What goes out: the jobs of any step, a pure function of these; so a
resumed run plays what the uninterrupted one would have played. Plays nothing itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agentrl.env.tasks import TaskSource
from agentrl.rollout.episode import Job
from agentrl.rollout.settings import RolloutSettings
from agentrl.seeds import derive_seed


class GroupJobs(NamedTuple):
    """The episodes of one task."""

    group_id: str
    sampled: tuple[Job, ...]
    greedy: Job | None

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All of them, the greedy one last."""
        return self.sampled if self.greedy is None else (*self.sampled, self.greedy)


class Plan:
    """The groups of every step of a run.

    Args:
        greedy: play each task once more without sampling.
    """

    def __init__(self, tasks: TaskSource, settings: RolloutSettings, *, seed: int, greedy: bool = False) -> None:
        self._tasks, self._seed, self._greedy = tasks, seed, greedy
        self._groups, self._group_size = settings.groups_per_step, settings.group_size
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._others: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def group(self, position: int) -> GroupJobs:
        """The group at `position` of the run's stream; step s wants those from s * groups_per_step on."""
        step, number = divmod(position, self._groups)
        return self._group(self._index(position), f"s{step}g{number}", position)

    def more(self, step: int, place: int) -> GroupJobs:
        """The group at `place` of those that a step may play beside its own.

        Of a data set, in an order of the step; those that the step plays anyway come last.
        """
        return self._group(self._other_index(step, place), f"s{step}more{place}", f"{step}/{place}")

    def _group(self, index: int, group_id: str, place: int | str) -> GroupJobs:
        """The episodes of one task; `place` tells them apart from all others of the run."""
        task = self._tasks.task(index)
        seeds = (derive_seed(self._seed, "episode", place, member) for member in range(self._group_size))
        sampled = tuple(Job(task, group_id, seed) for seed in seeds)
        if not self._greedy:
            return GroupJobs(group_id, sampled, None)
        greedy = Job(task, group_id, derive_seed(self._seed, "greedy", place), greedy=True)
        return GroupJobs(group_id, sampled, greedy)

    def _index(self, position: int) -> int:
        """Which task stands at `position` of the run's endless task stream.

        A data set is shuffled anew each pass. Procedural tasks begin at an index that is the run's own.
        """
        size = self._tasks.size
        if size is None:
            return derive_seed(self._seed, "task", position)
        epoch, place = divmod(position, size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng(derive_seed(self._seed, "epoch", epoch)).permutation(size)
        return int(self._order[place])

    def _other_index(self, step: int, place: int) -> int:
        """Which task stands at `place` of those that a step may play beside its own."""
        size = self._tasks.size
        if size is None:
            return derive_seed(self._seed, "task", "more", step, place)
        if self._others[0] != step:
            own = [self._index(position) for position in range(step * self._groups, (step + 1) * self._groups)]
            order = np.random.default_rng(derive_seed(self._seed, "more", step)).permutation(size)
            is_own = np.isin(order, own)
            self._others = step, np.concatenate([order[~is_own], order[is_own]])
        return int(self._others[1][place % size])
