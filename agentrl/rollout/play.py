"""Plays jobs, each until it has a trajectory that did not fail or its retries are used up.

What comes in: jobs, environments, an engine, a renderer, limits. What goes out: for each job the trajectory that
counts, and the failed ones before it. A retry has a seed of its own, made from the job's. Knows no group, no model and
no file.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from agentrl.engine.base import Engine
from agentrl.env.base import Env
from agentrl.env.threads import noting_hung
from agentrl.errors import BoundaryError
from agentrl.render.renderer import Renderer
from agentrl.rollout.envs import EnvPool, env_pool
from agentrl.rollout.episode import Job, failed_trajectory, run_episode
from agentrl.rollout.failures import backoff_s, retries
from agentrl.rollout.pool import run_pool
from agentrl.rollout.settings import RolloutSettings
from agentrl.rollout.turnstile import Turnstile
from agentrl.seeds import derive_seed
from agentrl.trajectory import Outcome, Trajectory

Recover = Callable[[], Awaitable[None]]
_episode_numbers = itertools.count()


class Played(NamedTuple):
    """A job that was played."""

    trajectory: Trajectory
    failed: tuple[Trajectory, ...] = ()  # the attempts before it


class Player:
    """Plays one job after another, or many at once.

    Args:
        recover: awaited before a job is played anew because the engine failed; it brings the engine back, if it can.
        on_attempt: told of each attempt, and of whether another one follows. What it raises ends the play.
    """

    def __init__(
        self,
        envs: EnvPool,
        engine: Engine,
        renderer: Renderer,
        settings: RolloutSettings,
        *,
        recover: Recover | None = None,
        on_attempt: Callable[[Trajectory, bool], None] | None = None,
    ) -> None:
        self._envs, self._engine, self._renderer, self._settings = envs, engine, renderer, settings
        self._recover, self._on_attempt = recover, on_attempt
        self._turnstile = Turnstile()

    async def play(self, job: Job) -> Played:
        """Play `job`, and again while it fails and its kind of failure has retries left."""
        failed: list[Trajectory] = []
        while True:
            trajectory = await self._attempt(job if not failed else _again(job, len(failed)))
            ways = [t.outcome for t in (*failed, trajectory)]
            again = trajectory.outcome.failed and ways.count(ways[-1]) <= retries(self._settings.retry, ways[-1])
            if self._on_attempt is not None:
                self._on_attempt(trajectory, again)
            if not again:
                return Played(trajectory, tuple(failed))
            failed.append(trajectory)
            await asyncio.sleep(backoff_s(self._settings.retry, len(failed), derive_seed(job.seed, len(failed))))
            if ways[-1] is Outcome.FAILED_ENGINE and self._recover is not None:
                await self._recover()

    async def _attempt(self, job: Job) -> Trajectory:
        await self._turnstile()
        try:
            env = self._envs.take()
        except BoundaryError as error:
            return failed_trajectory(job, error)
        healthy = False
        try:
            with noting_hung() as hung:
                trajectory = await run_episode(
                    job,
                    env,
                    self._engine,
                    self._renderer,
                    self._settings,
                    episode_id=f"{job.group_id}/{next(_episode_numbers)}",
                    turnstile=self._turnstile,
                )
                healthy = not trajectory.outcome.failed and not hung()
            return trajectory
        finally:
            await self._envs.give(env, healthy=healthy)


async def play(
    jobs: Sequence[Job],
    *,
    make_env: Callable[[], Env] | EnvPool,
    engine: Engine,
    renderer: Renderer,
    settings: RolloutSettings,
    recover: Recover | None = None,
    on_done: Callable[[Trajectory], None] | None = None,
) -> list[Played]:
    """Play every job, at most `settings.concurrency` at once; what was played comes in the order of the jobs.

    Args:
        make_env: makes an environment, or a pool that outlives this call.
        recover: awaited before a job is played anew because the engine failed.
        on_done: told of each job's trajectory as soon as it is sealed.
    """
    async with env_pool(make_env) as envs:
        player = Player(envs, engine, renderer, settings, recover=recover)

        async def one(job: Job) -> Played:
            played = await player.play(job)
            if on_done is not None:
                on_done(played.trajectory)
            return played

        return await run_pool(jobs, one, concurrency=settings.concurrency)


def _again(job: Job, attempt: int) -> Job:
    return replace(job, seed=derive_seed(job.seed, "attempt", attempt))
