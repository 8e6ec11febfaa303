"""A training run: the policy, imitation, reinforcement learning, evaluation.

What comes in: a recipe, a folder, a display. What goes out: a trained checkpoint and the run's records in the folder.
A folder that holds checkpoints is gone on with from the latest one; the run then ends with the same weights as if it
had never stopped (on a CPU, with the embedded engine and tools that do not run in threads).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from agentrl.engine.base import Engine
from agentrl.engine.scripted import ScriptedEngine
from agentrl.env.base import Env
from agentrl.env.calling import invoke
from agentrl.env.task import Task
from agentrl.env.tasks import TaskSource
from agentrl.errors import DataError
from agentrl.evaluate.evaluate import evaluate_tasks
from agentrl.learner.checkpoint import keep_latest, latest_checkpoint, load_state, save_checkpoint
from agentrl.learner.learner import Learner
from agentrl.learner.policy import load_model, load_trainable
from agentrl.learner.sync import ModelWeights, Sync
from agentrl.objective.batch import Memory
from agentrl.objective.loading import load_spec
from agentrl.objective.objective import Objective
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import HFTokenizer
from agentrl.rollout.collector import Collector, Demand
from agentrl.rollout.failures import check_failures
from agentrl.rollout.garbage import quiet_garbage
from agentrl.rollout.metrics import rollout_metrics
from agentrl.rollout.settings import RolloutSettings
from agentrl.seeds import derive_seed
from agentrl.train.build import find_device, load_teacher, make_engine, make_env, make_renderer, policy_folder
from agentrl.train.children import descendants, end_descendants
from agentrl.train.disk import needed
from agentrl.train.display import Display
from agentrl.train.metrics import env_metrics
from agentrl.train.recipe import EvaluationSettings, Recipe, TrainSettings
from agentrl.train.recovery import Recovery
from agentrl.train.run import Run
from agentrl.train.summary import RunSummary
from agentrl.train.warmup import imitate
from agentrl.trajectory import Group

if TYPE_CHECKING:
    from agentrl.learner.policy import PreTrainedModel

_PROBES = 4
_LAG_S = 0.5
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the stages of one run share."""

    recipe: Recipe
    run: Run
    display: Display
    model: PreTrainedModel
    teacher: PreTrainedModel | None
    dtype: torch.dtype
    tokenizer: HFTokenizer
    renderer: Renderer
    engine: Engine
    env: Env  # gives the tasks; plays no episode
    held_out: list[Task]
    stack: AsyncExitStack  # closes what the stages open


async def train(recipe: Recipe, folder: Path, *, display: Display) -> RunSummary:
    """Run a recipe in `folder`, from its latest checkpoint if it has one.

    Raises:
        UserError: the recipe cannot be run as it is.
        SyncError: the engine did not get the learner's weights.
        RunStoppedError: too many episodes failed, the gradient is not finite, or the disk is full.
    """
    device, dtype = find_device(recipe.launch)
    if recipe.launch.threads:
        torch.set_num_threads(recipe.launch.threads)
    checkpoint = latest_checkpoint(folder / "checkpoints")
    state, facts = load_state(checkpoint) if checkpoint else ({}, {})
    async with AsyncExitStack() as stack:
        stack.callback(end_descendants, descendants())
        run = Run(folder, after=facts.get("step"), note=display.note)
        stack.callback(run.close)
        stack.callback(run.write_summary, recipe)
        if facts:
            run.take_facts(facts["run"])
        display.note(f"run folder: {folder}" + (f", going on after RL step {facts['step']}" if facts else ""))
        display.stage("set up", 1)
        with run.timed("setup"):
            env = make_env(recipe)
            stack.push_async_callback(invoke, env.close)
            held_out = held_out_tasks(env, recipe.evaluation)
            policy = await policy_folder(recipe, run.policy)
            tokenizer = HFTokenizer(policy)
            model = load_trainable(checkpoint or policy, device=device)
            teacher = load_teacher(recipe.learner.teacher, tokenizer, device) if recipe.learner.teacher else None
            engine = make_engine(recipe.engine, policy, device, dtype, seed=recipe.seed)
            stack.push_async_callback(engine.close)
            await engine.start()
        renderer = make_renderer(tokenizer, recipe.policy.parser)
        parts = _Parts(recipe, run, display, model, teacher, dtype, tokenizer, renderer, engine, env, held_out, stack)
        stack.enter_context(quiet_garbage())
        if not facts:
            await _warm_up(parts)
        await _reinforce(parts, state, facts)
    summary = run.summary(recipe)
    display.finish(summary)
    return summary


def held_out_tasks(env: Env, settings: EvaluationSettings) -> list[Task]:
    """Different tasks of the evaluation's split, none of which is trained on.

    Raises:
        DataError: the split has too few tasks, or shares some with "train".
    """
    tasks = TaskSource(env, settings.split).distinct(settings.tasks)
    trained = env.tasks("train")
    if settings.split != "train" and trained is not None:
        shared = {task.id for task in tasks} & {task.id for task in trained}
        if shared:
            raise DataError(
                f"{len(shared)} of {len(tasks)} tasks of split {settings.split!r} are trained on as well: give "
                "tasks(split) different tasks for each split, or set evaluation.split = 'train' and know what it says"
            )
    return tasks


async def _warm_up(parts: _Parts) -> None:
    settings, recipe, run = parts.recipe.warmup, parts.recipe, parts.run
    if not settings.steps:
        return
    objective = Objective(load_spec("reinforce", {"aggregate": "token_mean"}))
    learner = Learner(
        parts.model,
        objective,
        settings.optimizer,
        total_updates=settings.steps,
        micro_batch_tokens=recipe.learner.micro_batch_tokens,
        compute_dtype=parts.dtype,
        seed=recipe.seed,
    )
    rollout = replace(recipe.rollout, groups_per_step=settings.episodes_per_step, group_size=1, oversample=1.0)
    collector = _collector(parts, ScriptedEngine("demo"), stage="warmup", rollout=rollout)
    parts.display.stage("warm-up (imitation)", settings.steps)
    step = 0
    with run.timed("warmup"):
        async for metrics in imitate(collector, learner, settings.steps):
            step += 1
            run.record("warmup", step, metrics)
            parts.display.advance(step, metrics)


async def _reinforce(parts: _Parts, state: dict[str, object], facts: dict[str, Any]) -> None:
    recipe, run, engine = parts.recipe, parts.run, parts.engine
    objective = Objective(load_spec(recipe.objective.preset, recipe.objective.overrides))
    learner = _learner(parts, objective)
    start, memory = facts.get("step", 0), facts.get("memory", {})
    if state:
        learner.load_state(state)
    recovery = Recovery(engine, await _sync(parts, learner), parts.display.note)
    parts.stack.push_async_callback(recovery.close)
    async with recovery.lock:
        await recovery.push(start)
    collector = _collector(
        parts,
        engine,
        stage="rl",
        rollout=recipe.rollout,
        greedy=objective.spec.needs_greedy,
        demand=demand_of(objective, recipe.train),
        recover=recovery,
    )
    if not state:
        await _evaluate(parts, recovery, "warmup", 0)
        _save(parts, learner, memory, 0)
    if objective.spec.needs_reference:
        learner.reference = load_model(run.checkpoints / "step-00000", device=str(learner.device))
    if recipe.train.max_staleness and not objective.spec.minds_the_sampler:
        parts.display.note(
            f"train.max_staleness is {recipe.train.max_staleness} and the objective takes every token for the policy's "
            "own: objective.mismatch = 'token_tis' or objective.anchor = 'behavior' would correct for older weights"
        )
    parts.display.stage(f"RL ({recipe.objective.preset})", recipe.train.steps)
    for step in range(start, recipe.train.steps):
        began = time.perf_counter()
        try:
            with run.timed("rollout"):
                groups = await collector.collect(step)
        finally:
            run.failures.update(collector.take_failures())
        rollout_s = time.perf_counter() - began
        async with recovery.lock:
            with run.timed("update"):
                learn = partial(_learn, objective, learner, groups, memory, step)
                learnt = await _beside(recipe, learn)
                memory = learnt.memory
            with run.timed("sync"):
                gap = await recovery.push(step + 1)
        metrics = {**learnt.metrics, **env_metrics(groups), **rollout_metrics(groups), **collector.metrics}
        _warn_of_lag(parts, metrics)
        metrics |= {f"engine/{name}": value for name, value in engine.metrics().items() if not math.isnan(value)}
        metrics |= {"sync_gap": gap, "rollout_s": rollout_s}
        metrics |= {"version": float(engine.version), "step_s": time.perf_counter() - began}
        run.record("rl", step + 1, metrics)
        parts.display.advance(step + 1, metrics)
        await _after_step(parts, recovery, learner, memory, groups, step + 1)


def _warn_of_lag(parts: _Parts, metrics: Mapping[str, float]) -> None:
    """Say once that something computes in the event loop while episodes run."""
    lag_s = metrics.get("time/loop_lag_p99_s", 0.0)
    if lag_s > _LAG_S and not parts.run.warned_of_lag:
        parts.run.warned_of_lag = True
        parts.display.note(
            f"the event loop is late by {lag_s:.2f} s (99th percentile): something computes in it and delays every "
            "episode. A tool, reward, step or reset that computes is better a plain def, which runs in a thread"
        )


async def _beside(recipe: Recipe, work: Callable[[], Result]) -> Result:
    """Do it in a thread where episodes go on meanwhile; else at once, in this one."""
    return await asyncio.to_thread(work) if recipe.train.max_staleness else work()


class _Learnt(NamedTuple):
    metrics: Mapping[str, float]
    memory: Memory


def _learn(objective: Objective, learner: Learner, groups: Sequence[Group], memory: Memory, step: int) -> _Learnt:
    """One step's update: select, score, credit, learn, remember."""
    kept = objective.select(groups, version=step)
    scores = learner.score(kept)
    credited = objective.credit(kept, scores, memory)
    result = learner.update(credited, step=step)
    return _Learnt({**credited.metrics, **result}, objective.remember(credited, result))


def demand_of(objective: Objective, settings: TrainSettings) -> Demand:
    """Which groups the objective and the settings of a run ask for."""
    return Demand(
        useful=objective.useful,
        refill=objective.refill,
        max_staleness=settings.max_staleness,
        stale=settings.stale,
        steps=settings.steps,
    )


async def _after_step(
    parts: _Parts, recovery: Recovery, learner: Learner, memory: Memory, groups: Sequence[Group], step: int
) -> None:
    """Evaluate, save trajectories and checkpoints where due. A checkpoint comes last: what it says has happened."""
    train, every = parts.recipe.train, parts.recipe.evaluation.every
    last = step == train.steps
    if train.save_trajectories_every and step % train.save_trajectories_every == 0:
        with parts.run.timed("records"):
            save = partial(parts.run.save_trajectories, f"step-{step:05d}", groups, step=step)
            await _beside(parts.recipe, save)
    if last or (every and step % every == 0):
        await _evaluate(parts, recovery, "end" if last else "", step)
    if last or (train.checkpoint_every and step % train.checkpoint_every == 0):
        await _beside(parts.recipe, partial(_save, parts, learner, memory, step))


def _collector(parts: _Parts, engine: Engine, *, stage: str, rollout: RolloutSettings, **options: Any) -> Collector:
    recipe, tasks = parts.recipe, TaskSource(parts.env, "train")
    seed = derive_seed(recipe.seed, stage)
    collector = Collector(tasks, lambda: make_env(recipe), engine, parts.renderer, rollout, seed=seed, **options)
    parts.stack.push_async_callback(collector.close)
    return collector


def _learner(parts: _Parts, objective: Objective) -> Learner:
    settings = parts.recipe.learner
    return Learner(
        parts.model,
        objective,
        settings.optimizer,
        total_updates=parts.recipe.train.steps * settings.epochs * settings.minibatches,
        temperature=parts.recipe.rollout.temperature,
        epochs=settings.epochs,
        minibatches=settings.minibatches,
        micro_batch_tokens=settings.micro_batch_tokens,
        compute_dtype=parts.dtype,
        value_lr=settings.value_lr,
        teacher=parts.teacher,
        seed=parts.recipe.seed,
    )


async def _sync(parts: _Parts, learner: Learner) -> Sync:
    """The push and its canary; the probes are the prompts of the first tasks."""
    settings, env = parts.recipe.sync, make_env(parts.recipe)
    parts.stack.push_async_callback(invoke, env.close)
    tasks = TaskSource(env, "train")
    probes = []
    for task in tasks.distinct(_PROBES if tasks.size is None else min(_PROBES, tasks.size)):
        observation, _ = await invoke(env.reset, seed=0, options={"task": task})
        probes.append(parts.renderer.prompt(list(observation), env.tool_schemas))
    tolerance = settings.tolerance or (1e-4 if parts.dtype is torch.float32 else 0.15)
    weights = ModelWeights(parts.model)
    return Sync(weights, learner, parts.engine, probes, probe_tokens=settings.probe_tokens, tolerance=tolerance)


async def _evaluate(parts: _Parts, recovery: Recovery, name: str, step: int) -> None:
    """Greedy success on the held-out tasks; kept in the summary under `name`, if it has one."""
    run = parts.run
    with run.timed("evaluation"):
        recipe = parts.recipe
        result = await evaluate_tasks(
            lambda: make_env(recipe),
            parts.held_out,
            parts.engine,
            parts.renderer,
            recipe.rollout,
            seed=recipe.seed,
            recover=recovery,
        )
    check_failures(result.trajectories, recipe.rollout.max_failed_share)
    run.count_failures(result.trajectories)
    run.failures.update(result.retried)
    success, share = result.success, result.metrics.get("called_tool")
    metrics = {"success": success.mean, "low": success.low, "high": success.high, "failed": float(result.failed)}
    if share is not None:
        metrics["tool_share"] = share
    run.record("evaluation", step, metrics)
    if name:
        run.success[name] = success.to_dict()
        if share is not None:
            run.tool_share[name] = share
    parts.display.note(f"held-out greedy success at RL step {step}: {result.success}")


def _save(parts: _Parts, learner: Learner, memory: Memory, step: int) -> None:
    run = parts.run
    with run.timed("checkpoint"):
        facts = {"run": run.facts(), "memory": memory}
        with needed(run.checkpoints / f"step-{step:05d}", run.folder):
            save_checkpoint(run.checkpoints, step, parts.model, parts.tokenizer.save, learner.state(), facts)
        keep_latest(run.checkpoints, parts.recipe.train.keep_checkpoints)
