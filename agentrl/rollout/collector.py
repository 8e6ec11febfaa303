"""Plays many episodes at once and hands over groups.

What comes in: tasks, a way to make environments, an engine, a renderer, limits. What goes out: groups of
trajectories, in an order that depends on the seed alone. A slot is refilled as soon as its episode ends; no turn
waits for another episode's turn. Knows no model, no objective and no file.
"""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from agentrl.engine.base import Engine
from agentrl.env.base import Env
from agentrl.env.calling import invoke
from agentrl.env.tasks import TaskSource
from agentrl.errors import BoundaryError, EnvFailure, RunStoppedError, UserError
from agentrl.render.renderer import Renderer
from agentrl.rollout.episode import Job, failed_trajectory, run_episode
from agentrl.rollout.pool import run_pool
from agentrl.rollout.settings import RolloutSettings
from agentrl.seeds import derive_seed
from agentrl.trajectory import Group, Trajectory

_CLOSE_DEADLINE_S = 10.0
_episode_numbers = itertools.count()


class EnvPool:
    """Environments between episodes. One that failed is closed and never used again."""

    def __init__(self, make_env: Callable[[], Env]) -> None:
        self._make_env = make_env
        self._free: list[Env] = []

    def take(self) -> Env:
        """A free environment, or a new one.

        Raises:
            EnvFailure: it could not be made.
        """
        if self._free:
            return self._free.pop()
        try:
            return self._make_env()
        except (BoundaryError, UserError):
            raise
        except Exception as error:
            raise EnvFailure(f"the environment could not be made: {type(error).__name__}: {error}") from error

    async def give(self, env: Env, *, healthy: bool) -> None:
        if healthy:
            self._free.append(env)
        else:
            await _close(env)

    async def close(self) -> None:
        while self._free:
            await _close(self._free.pop())


async def _close(env: Env) -> None:
    """Close an environment; one that cannot be closed is left behind with a warning, for its episodes are over."""
    try:
        async with asyncio.timeout(_CLOSE_DEADLINE_S):
            await invoke(env.close)
    except Exception as error:
        warnings.warn(f"{type(env).__name__}.close: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)


async def play(
    jobs: Sequence[Job],
    *,
    make_env: Callable[[], Env] | EnvPool,
    engine: Engine,
    renderer: Renderer,
    settings: RolloutSettings,
    on_done: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Play every job, at most `settings.concurrency` at once; trajectories come in the order of the jobs.

    Args:
        make_env: makes an environment, or a pool that outlives this call.
        on_done: told of each trajectory as soon as it is sealed.
    """
    envs = make_env if isinstance(make_env, EnvPool) else EnvPool(make_env)

    async def played(job: Job, env: Env) -> Trajectory:
        healthy = False
        try:
            episode_id = f"{job.group_id}/{next(_episode_numbers)}"
            trajectory = await run_episode(job, env, engine, renderer, settings, episode_id=episode_id)
            healthy = not trajectory.outcome.failed
            return trajectory
        finally:
            await envs.give(env, healthy=healthy)

    async def one(job: Job) -> Trajectory:
        try:
            env = envs.take()
        except BoundaryError as error:
            trajectory = failed_trajectory(job, error)
        else:
            trajectory = await played(job, env)
        if on_done is not None:
            on_done(trajectory)
        return trajectory

    try:
        return await run_pool(jobs, one, concurrency=settings.concurrency)
    finally:
        if envs is not make_env:
            await envs.close()


class Missing(Protocol):
    """Says how many groups are to be played beside those that were."""

    def __call__(self, groups: Sequence[Group], *, wanted: int, rounds: int) -> int:
        """
        Args:
            groups: those of the step so far.
            wanted: how many the step is to have.
            rounds: how often more were played already.
        """
        ...


class Collector:
    """Collects the groups of a training step.

    Which tasks a step plays, and with which seeds, is a pure function of the run's seed, the step and the round, so a
    resumed run plays what the uninterrupted one would have played.

    Args:
        greedy: play each task once more without sampling, into `Group.greedy`.
    """

    def __init__(
        self,
        tasks: TaskSource,
        make_env: Callable[[], Env],
        engine: Engine,
        renderer: Renderer,
        settings: RolloutSettings,
        *,
        seed: int,
        greedy: bool = False,
        on_done: Callable[[Trajectory], None] | None = None,
    ) -> None:
        self._tasks, self._engine, self._renderer, self._settings = tasks, engine, renderer, settings
        self._envs = EnvPool(make_env)
        self._seed, self._greedy = seed, greedy
        self._on_done = on_done
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    async def collect(self, step: int, missing: Missing | None = None) -> list[Group]:
        """Play the step's groups, and in further rounds those that are missing still.

        Raises:
            RunStoppedError: more episodes failed than `rollout.max_failed_share` allows.
        """
        wanted = self._settings.groups_per_step
        groups = await self._play(self.jobs(step))
        check_failures([t for group in groups for t in group.played], self._settings.max_failed_share)
        for rounds in itertools.count():
            more = 0 if missing is None else missing(groups, wanted=wanted, rounds=rounds)
            if more <= 0:
                break
            groups += await self._play(self.more_jobs(step, rounds, more))
            check_failures([t for group in groups for t in group.played], self._settings.max_failed_share)
        return groups

    async def _play(self, jobs: Sequence[Job]) -> list[Group]:
        trajectories = await play(
            jobs,
            make_env=self._envs,
            engine=self._engine,
            renderer=self._renderer,
            settings=self._settings,
            on_done=self._on_done,
        )
        size = self._settings.group_size
        parts = (trajectories[i : i + size + self._greedy] for i in range(0, len(jobs), size + self._greedy))
        return [
            Group(part[0].group_id, part[0].task_id, tuple(part[:size]), part[size] if self._greedy else None)
            for part in parts
        ]

    def jobs(self, step: int) -> list[Job]:
        """The step's episodes: `groups_per_step` tasks, `group_size` times each, and greedily where that is asked."""
        first, count = step * self._settings.groups_per_step, self._settings.groups_per_step
        places = enumerate(range(first, first + count))
        return [job for g, at in places for job in self._group(self._index(at), f"s{step}g{g}", at)]

    def more_jobs(self, step: int, rounds: int, count: int) -> list[Job]:
        """The episodes of `count` tasks beside the step's own, after `rounds` such rounds.

        Of a data set, in an order of the step; those that the step plays anyway come last.
        """
        jobs = []
        for g in range(count):
            place = rounds * self._settings.groups_per_step + g
            jobs += self._group(self._other_index(step, place), f"s{step}r{rounds}g{g}", f"{step}/{place}")
        return jobs

    def _group(self, index: int, group_id: str, place: int | str) -> list[Job]:
        """The episodes of one task; `place` tells them apart from all others of the run."""
        task = self._tasks.task(index)
        seeds = [derive_seed(self._seed, "episode", place, member) for member in range(self._settings.group_size)]
        jobs = [Job(task, group_id, seed) for seed in seeds]
        if self._greedy:
            jobs.append(Job(task, group_id, derive_seed(self._seed, "greedy", place), greedy=True))
        return jobs

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
        first, count = step * self._settings.groups_per_step, self._settings.groups_per_step
        own = [self._index(position) for position in range(first, first + count)]
        order = np.random.default_rng(derive_seed(self._seed, "more", step)).permutation(size)
        is_own = np.isin(order, own)
        return int(np.concatenate([order[~is_own], order[is_own]])[place % size])

    async def close(self) -> None:
        await self._envs.close()


def check_failures(trajectories: Sequence[Trajectory], max_share: float) -> None:
    """Stop a run whose episodes fail, or end before the policy could say anything.

    Raises:
        RunStoppedError: names each way to fail, how often it came up, and one error's text.
    """
    failed = [t for t in trajectories if t.outcome.failed or not t.turns]
    if not trajectories or len(failed) / len(trajectories) <= max_share:
        return
    counts = Counter(t.outcome for t in failed)
    examples = {outcome: next(t.error for t in failed if t.outcome is outcome) for outcome in counts}
    told = "; ".join(f"{outcome.value} x{n}: {examples[outcome]}" for outcome, n in counts.most_common())
    raise RunStoppedError(
        f"{len(failed)} of {len(trajectories)} episodes failed, and rollout.max_failed_share = {max_share}: {told}"
    )
