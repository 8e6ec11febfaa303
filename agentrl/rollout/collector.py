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


class Collector:
    """Collects the groups of a training step.

    Which tasks a step plays, and with which seeds, is a pure function of the run's seed and the step, so a resumed run
    plays what the uninterrupted one would have played.
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
        on_done: Callable[[Trajectory], None] | None = None,
    ) -> None:
        self._tasks, self._engine, self._renderer, self._settings = tasks, engine, renderer, settings
        self._envs = EnvPool(make_env)
        self._seed = seed
        self._on_done = on_done
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    async def collect(self, step: int) -> list[Group]:
        """Play the step's groups.

        Raises:
            RunStoppedError: more episodes failed than `rollout.max_failed_share` allows.
        """
        jobs = self.jobs(step)
        trajectories = await play(
            jobs,
            make_env=self._envs,
            engine=self._engine,
            renderer=self._renderer,
            settings=self._settings,
            on_done=self._on_done,
        )
        check_failures(trajectories, self._settings.max_failed_share)
        size = self._settings.group_size
        return [
            Group(members[0].group_id, members[0].task_id, tuple(members))
            for members in (trajectories[i : i + size] for i in range(0, len(trajectories), size))
        ]

    def jobs(self, step: int) -> list[Job]:
        """The step's episodes: `groups_per_step` tasks, `group_size` times each."""
        settings = self._settings
        first = step * settings.groups_per_step
        jobs = []
        for g, position in enumerate(range(first, first + settings.groups_per_step)):
            task = self._tasks.task(self._index(position))
            for member in range(settings.group_size):
                jobs.append(Job(task, f"s{step}g{g}", derive_seed(self._seed, "episode", position, member)))
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
