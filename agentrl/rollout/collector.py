"""Collects the groups of training steps from episodes that are played all the time.

What comes in: tasks, a way to make environments, an engine, a renderer, limits, and which groups are wanted. What goes
out: for each step its groups. Nothing waits for an episode but the group it belongs to. Knows no model, no objective
and no file.

With `max_staleness` = 0 the collector plays the groups of one step, under one version of the weights, and nothing is in
flight between two steps. A group that is not useful is played for again at once, by another task; which task that is
depends on how many there were before it in the step, so what a step collects is a function of the plan, not of who was
first.

With `max_staleness` = n > 0 the groups of the next n steps are begun as well, and go on while the learner learns and
the weights change under them. A step takes the groups that are done, the oldest first. A group of which a token is
older than n versions is stale: dropped and played for again, or kept for the objective to correct.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from agentrl.engine.base import Engine
from agentrl.env.base import Env
from agentrl.env.tasks import TaskSource
from agentrl.errors import RunStoppedError
from agentrl.render.renderer import Renderer
from agentrl.rollout.envs import EnvPool
from agentrl.rollout.episode import Job
from agentrl.rollout.failures import FailureWatch
from agentrl.rollout.lag import LoopLag
from agentrl.rollout.plan import GroupJobs, Plan
from agentrl.rollout.play import Played, Player, Recover
from agentrl.rollout.settings import RolloutSettings
from agentrl.trajectory import Group, Trajectory

Stale = Literal["drop", "keep"]
_Order = tuple[int, int]  # the step a group was begun for, and its number there


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Which groups a run wants.

    Args:
        useful: whether a group counts; for one that does not another task is played.
        refill: most groups a step that are played in place of others, in multiples of `groups_per_step`.
        max_staleness: most versions between the weights that sampled a token and those that learn from it.
        stale: what becomes of an older group.
        steps: of the run; nothing is begun for later ones. None: no end.
    """

    useful: Callable[[Group], bool] | None = None
    refill: int = 0
    max_staleness: int = 0
    stale: Stale = "drop"
    steps: int | None = None


class Collector:
    """Plays ahead as far as `demand` allows, and hands over the groups of each step.

    The collector owns its tasks: `close` cancels and awaits them, and so does a `collect` that fails or is cancelled.

    Args:
        seed: of the tasks and of all that is sampled.
        greedy: play each task once more without sampling, into `Group.greedy`.
        recover: awaited before an episode that the engine failed is played anew.
        on_done: told of each trajectory that counts, as soon as it is sealed.
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
        demand: Demand | None = None,
        recover: Recover | None = None,
        on_done: Callable[[Trajectory], None] | None = None,
    ) -> None:
        self._plan = Plan(tasks, settings, seed=seed, greedy=greedy)
        self._envs, self._engine, self._settings = EnvPool(make_env), engine, settings
        self._player = Player(self._envs, engine, renderer, settings, recover=recover, on_attempt=self._attempted)
        self._demand, self._on_done = demand or Demand(), on_done
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._running: dict[asyncio.Task[None], GroupJobs] = {}
        self._ready: dict[_Order, Group] = {}
        self._unwanted: list[tuple[_Order, Group]] = []  # others are played in their place
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._cancelling = False
        self._step = self._position = self._more = self._refills = 0
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._collected_s = time.perf_counter()  # when the last step was
        self._watch = FailureWatch(settings.max_failed_share)
        self.metrics: Mapping[str, float] = {}  # of the step that was collected last

    async def collect(self, step: int) -> list[Group]:
        """The step's groups: `groups_per_step` that count, and those that others were played in place of.

        Raises:
            RunStoppedError: more episodes failed than `rollout.max_failed_share` allows.
        """
        began = time.perf_counter()
        try:
            async with LoopLag() as lag:
                groups = await self._collect(step)
        except BaseException:
            await self._cancel()
            raise
        now = time.perf_counter()
        sampled = sum(t.n_action_tokens for group in groups for t in group.played)
        speed = {"time/tokens_per_s": sampled / (now - (self._collected_s if self._demand.max_staleness else began))}
        self._collected_s = now
        self.metrics = {**lag.metrics(), **speed, **self._counted()}
        return groups

    async def close(self) -> None:
        """Cancel what is running, and give the environments back."""
        await self._cancel()
        await self._envs.close()

    async def _collect(self, step: int) -> list[Group]:
        self._step, self._more, self._refills = step, 0, 0
        for order in [order for order, group in self._ready.items() if self._is_stale(group)]:
            self._judge(order, self._ready.pop(order))
        self._begin_step(step)
        wanted = self._settings.groups_per_step
        while self._error is None and len(self._ready) < wanted and self._running:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error
        taken = [(order, self._ready.pop(order)) for order in sorted(self._ready)[:wanted]]
        self._counts["stale_groups"] += sum(self._is_stale(group) for _, group in taken)
        taken, self._unwanted = sorted([*taken, *self._unwanted], key=lambda each: each[0]), []
        if not self._demand.max_staleness:
            self._counts["discarded_groups"] += len(self._ready)
            self._ready.clear()
            await self._cancel()
        return [group for _, group in taken]

    def _begin_step(self, step: int) -> None:
        """Begin the groups of this step and of those that may be played ahead, as far as they are not begun yet."""
        size, demand = self._settings.groups_per_step, self._demand
        last = step + demand.max_staleness
        if demand.steps is not None:
            last = max(step, min(last, demand.steps - 1))
        first = step * size
        self._position = max(self._position, first) if demand.max_staleness else first
        while self._position < (last + 1) * size:
            self._begin(self._plan.group(self._position), divmod(self._position, size))
            self._position += 1
        surplus = math.ceil((self._settings.oversample - 1) * size - 1e-9)
        while surplus > 0 and len(self._running) + len(self._ready) < (last - step + 1) * size + surplus:
            self._begin_another()

    def _begin_another(self) -> None:
        """Begin a group beside the plan's own."""
        self._begin(self._plan.more(self._step, self._more), (self._step, self._settings.groups_per_step + self._more))
        self._more += 1

    def _begin(self, jobs: GroupJobs, order: _Order) -> None:
        self._watch.expect(len(jobs.jobs))
        task = asyncio.create_task(self._play(jobs, order), name=jobs.group_id)
        self._running[task] = jobs
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        jobs = self._running.pop(task, None)
        if task.cancelled():
            if jobs is not None and not self._cancelling:
                self._error = self._error or RunStoppedError(
                    f"an episode of group {jobs.group_id} was cancelled from within: its environment or one of its "
                    "tools cancelled the task that runs it, which is the rollout's"
                )
        elif task.exception() is not None:
            self._error = self._error or task.exception()
        self._changed.set()

    async def _play(self, jobs: GroupJobs, order: _Order) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                episodes = [tasks.create_task(self._episode(job)) for job in jobs.jobs]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        played = [episode.result() for episode in episodes]
        trajectories = [each.trajectory for each in played]
        greedy = trajectories.pop() if jobs.greedy is not None else None
        failed = tuple(t for each in played for t in each.failed)
        del self._running[_this_task()]  # now, not when the loop turns: a group is never both running and ready
        self._judge(order, Group(jobs.group_id, jobs.sampled[0].task.id, tuple(trajectories), greedy, failed))

    async def _episode(self, job: Job) -> Played:
        async with self._slots:
            played = await self._player.play(job)
        if self._on_done is not None:
            self._on_done(played.trajectory)
        return played

    def _judge(self, order: _Order, group: Group) -> None:
        """Keep a group for its step, or have another one played in its place."""
        demand = self._demand
        if demand.stale == "drop" and self._is_stale(group):
            self._counts["stale_groups"] += 1
            self._begin_another()
            return
        budget = demand.refill * self._settings.groups_per_step
        if self._refills < budget and demand.useful is not None and not demand.useful(group):
            self._refills += 1
            self._counts["refilled_groups"] += 1
            self._unwanted.append((order, group))
            self._begin_another()
            return
        self._ready[order] = group

    def _is_stale(self, group: Group) -> bool:
        limit = self._demand.max_staleness
        return limit > 0 and self._engine.version - group.oldest_version > limit

    def take_failures(self) -> dict[str, int]:
        """Attempts that failed since this was asked last, by outcome: those that were played anew, and those of groups
        that no step gets, too."""
        failures, self._failures = self._failures, Counter()
        return dict(failures)

    def _attempted(self, trajectory: Trajectory, again: bool) -> None:
        if trajectory.outcome.failed:
            self._failures[trajectory.outcome.value] += 1
        if again:
            self._counts[f"retried/{trajectory.outcome.value}"] += 1
        else:
            self._watch.saw(trajectory)

    def _counted(self) -> dict[str, float]:
        """What was counted since the last step; then counting begins anew."""
        counts, self._counts = self._counts, Counter()
        self._watch = FailureWatch(self._settings.max_failed_share)
        self._watch.expect(sum(len(jobs.jobs) for jobs in self._running.values()))
        gauges = {}
        if self._demand.max_staleness:
            gauges["ahead_groups"] = float(len(self._running) + len(self._ready))
        return {**{name: float(n) for name, n in counts.items() if n}, **gauges}

    async def _cancel(self) -> None:
        """Cancel and await every running group."""
        running = list(self._running)
        if not running:
            return
        self._counts["discarded_groups"] += len(running)
        self._cancelling = True
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        self._cancelling = False


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task
