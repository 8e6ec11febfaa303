"""Plays tasks against an engine and sums up how it went.

What comes in: a suite, or an environment and its tasks; an engine that has been started, a renderer, limits. What
goes out: results with intervals. The caller owns the engine. Knows no model, no objective and no file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentrl.engine.base import Engine
from agentrl.env.base import Env
from agentrl.env.calling import invoke
from agentrl.env.registry import make
from agentrl.env.task import Task
from agentrl.env.tasks import TaskSource
from agentrl.errors import ConfigError, RunStoppedError
from agentrl.evaluate.result import EvaluationResult, ScenarioResult, SuiteResult, summarise
from agentrl.evaluate.suite import Scenario, Suite
from agentrl.render.renderer import Renderer
from agentrl.rollout.episode import Job
from agentrl.rollout.failures import FailureWatch, scored
from agentrl.rollout.play import Recover, play
from agentrl.rollout.settings import RolloutSettings
from agentrl.seeds import derive_seed
from agentrl.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scenario is, in episodes."""

    scenario: str
    done: int
    total: int
    failed: int


OnProgress = Callable[[Progress], None]


async def evaluate(
    suite: Suite,
    engine: Engine,
    renderer: Renderer,
    *,
    rollout: RolloutSettings | None = None,
    repeats: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    on_done: Callable[[ScenarioResult], None] | None = None,
) -> SuiteResult:
    """Play every scenario of a suite, one after the other.

    Args:
        rollout: concurrency, deadlines, and the limits that a scenario leaves open; a scenario sets the temperature.
        repeats: attempts at each task, in place of the scenarios' own.
        seed: of the sampling, beside each scenario's. The tasks do not depend on it.
        on_done: told of each scenario's result as soon as it has been played.

    Raises:
        RunStoppedError: too many episodes of a scenario failed: `rollout.max_failed_share`, as in training.
        UnknownNameError: a scenario's environment is not there.
        ConfigError: its settings or its number of tasks do not fit it.
        DataError: its data or split is missing.
    """
    rollout = rollout or RolloutSettings()
    results = []
    for scenario in suite.scenarios:
        times = repeats or scenario.repeats
        try:
            found = await _evaluate_scenario(scenario, engine, renderer, rollout, times, seed, on_progress)
        except RunStoppedError as error:
            raise RunStoppedError(f"scenario {scenario.name!r}: {error}") from error
        results.append(found)
        if on_done is not None:
            on_done(found)
    return SuiteResult(suite.name, tuple(results))


async def evaluate_tasks(
    make_env: Callable[[], Env],
    tasks: Sequence[Task],
    engine: Engine,
    renderer: Renderer,
    settings: RolloutSettings,
    *,
    seed: int = 0,
    temperature: float = 0.0,
    repeats: int = 1,
    pass_threshold: float = 1.0,
    recover: Recover | None = None,
    on_done: Callable[[Trajectory], None] | None = None,
) -> EvaluationResult:
    """Play each task `repeats` times and sum up.

    Args:
        make_env: makes an environment; called once for each episode running at the same time.
        settings: concurrency, deadlines, limits and the share that may fail; its temperature is not used.
        temperature: of the sampling; 0 is greedy.
        pass_threshold: an episode succeeded where its outcome rewards sum to at least this.
        recover: awaited before an episode that the engine failed is played anew.
        on_done: told of each trajectory as soon as it is sealed.

    Raises:
        RunStoppedError: more than `settings.max_failed_share` of the episodes failed or could not be played; at once.
    """
    jobs = [
        Job(task, f"eval{index}", derive_seed(seed, "evaluate", task.id, attempt))
        for index, task in enumerate(tasks)
        for attempt in range(repeats)
    ]
    watch = FailureWatch(settings.max_failed_share)
    watch.expect(len(jobs))

    def seal(trajectory: Trajectory) -> None:
        if on_done is not None:
            on_done(trajectory)
        watch.saw(trajectory)

    played = await play(
        jobs,
        make_env=make_env,
        engine=engine,
        renderer=renderer,
        settings=replace(settings, temperature=temperature),
        recover=recover,
        on_done=seal,
    )
    trajectories = [each.trajectory for each in played]
    per_task = [trajectories[start : start + repeats] for start in range(0, len(trajectories), repeats)]
    retried = [failed for each in played for failed in each.failed]
    return summarise(per_task, retried=retried, pass_threshold=pass_threshold)


async def _evaluate_scenario(
    scenario: Scenario,
    engine: Engine,
    renderer: Renderer,
    rollout: RolloutSettings,
    repeats: int,
    seed: int,
    on_progress: OnProgress | None,
) -> ScenarioResult:
    started = time.perf_counter()

    def make_env() -> Env:
        return make(scenario.env, **scenario.settings)

    env = make_env()
    try:
        tasks = scenario_tasks(scenario, env)
        faults = tuple(env.data_faults(scenario.split))
    finally:
        await invoke(env.close)
    result = await evaluate_tasks(
        make_env,
        tasks,
        engine,
        renderer,
        _limits(scenario, rollout),
        seed=derive_seed(seed, scenario.name, scenario.seed),
        temperature=scenario.temperature,
        repeats=repeats,
        pass_threshold=scenario.pass_threshold,
        on_done=_counter(scenario.name, len(tasks) * repeats, on_progress),
    )
    wall_s = time.perf_counter() - started
    return ScenarioResult(scenario.name, scenario.env, scenario.split, wall_s, faults, result)


def scenario_tasks(scenario: Scenario, env: Env) -> list[Task]:
    """The scenario's tasks: the first ones of its split, all different unless the whole data set is asked for.

    Raises:
        ConfigError: all tasks of an environment that makes them without end, or more than there are.
        DataError: the environment has no such split, or its data is missing.
    """
    source = TaskSource(env, scenario.split)
    if scenario.tasks == "all":
        if source.size is None:
            raise ConfigError(
                f"scenario {scenario.name!r} asks for all tasks, but {scenario.env!r} makes them without end: "
                'write a number, such as "tasks = 400"'
            )
        return [source.task(index) for index in range(source.size)]
    if source.size is not None and scenario.tasks > source.size:
        raise ConfigError(
            f"scenario {scenario.name!r} asks for {scenario.tasks} tasks, but split {scenario.split!r} of "
            f'{scenario.env!r} has {source.size}: write "tasks = {source.size}", or "all"'
        )
    return source.distinct(scenario.tasks)


def _limits(scenario: Scenario, rollout: RolloutSettings) -> RolloutSettings:
    """The rollout's settings with the limits that the scenario sets."""
    names = ("max_turns", "max_tokens_per_turn", "max_tokens_per_episode")
    own = scenario.model_dump(include=set(names), exclude_none=True)
    return replace(rollout, **own)


def _counter(scenario: str, total: int, on_progress: OnProgress | None) -> Callable[[Trajectory], None] | None:
    if on_progress is None:
        return None
    done = failed = 0

    def count(trajectory: Trajectory) -> None:
        nonlocal done, failed
        done += 1
        failed += not scored(trajectory)
        on_progress(Progress(scenario, done, total, failed))

    return count
