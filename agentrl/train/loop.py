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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from agentrl.engine.scripted import ScriptedEngine
from agentrl.env.calling import invoke
from agentrl.learner.checkpoint import latest_checkpoint, load_state
from agentrl.learner.learner import Learner
from agentrl.learner.policy import load_model, load_trainable
from agentrl.objective.batch import Memory
from agentrl.objective.loading import load_spec
from agentrl.objective.objective import Objective
from agentrl.render.tokenizer import HFTokenizer
from agentrl.rollout.garbage import quiet_garbage
from agentrl.rollout.lag import LagWarning
from agentrl.rollout.metrics import rollout_metrics
from agentrl.train.build import find_device, load_teacher, make_engine, make_env, make_renderer, policy_folder
from agentrl.train.children import descendants, end_descendants
from agentrl.train.display import Display
from agentrl.train.evaluation import evaluate, held_out_tasks
from agentrl.train.metrics import env_metrics
from agentrl.train.parts import Parts, demand_of, make_collector, make_learner, make_sync
from agentrl.train.recipe import Recipe
from agentrl.train.recovery import Recovery
from agentrl.train.run import Run
from agentrl.train.saving import save
from agentrl.train.summary import RunSummary
from agentrl.train.warmup import imitate
from agentrl.trajectory import Group

Result = TypeVar("Result")


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
        parts = Parts(recipe, run, display, model, teacher, dtype, tokenizer, renderer, engine, env, held_out, stack)
        stack.enter_context(quiet_garbage())
        if not facts:
            await _warm_up(parts)
        await _reinforce(parts, state, facts)
    summary = run.summary(recipe)
    display.finish(summary)
    return summary


async def _warm_up(parts: Parts) -> None:
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
    collector = make_collector(parts, ScriptedEngine("demo"), stage="warmup", rollout=rollout)
    parts.display.stage("warm-up (imitation)", settings.steps)
    step = 0
    with run.timed("warmup"):
        async for metrics in imitate(collector, learner, settings.steps):
            step += 1
            run.record("warmup", step, metrics)
            parts.display.advance(step, metrics)


async def _reinforce(parts: Parts, state: dict[str, object], facts: dict[str, Any]) -> None:
    recipe, run, engine = parts.recipe, parts.run, parts.engine
    objective = Objective(load_spec(recipe.objective.preset, recipe.objective.overrides))
    learner = make_learner(parts, objective)
    start, memory = facts.get("step", 0), facts.get("memory", {})
    if state:
        learner.load_state(state)
    recovery = Recovery(engine, await make_sync(parts, learner), parts.display.note)
    parts.stack.push_async_callback(recovery.close)
    async with recovery.lock:
        await recovery.push(start)
    collector = make_collector(
        parts,
        engine,
        stage="rl",
        rollout=recipe.rollout,
        greedy=objective.spec.needs_greedy,
        demand=demand_of(objective, recipe.train),
        recover=recovery,
    )
    if not state:
        await evaluate(parts, recovery, "warmup", 0)
        save(parts, learner, memory, 0)
    if objective.spec.needs_reference:
        learner.reference = load_model(run.checkpoints / "step-00000", device=str(learner.device))
    if recipe.train.max_staleness and not objective.spec.minds_the_sampler:
        parts.display.note(
            f"train.max_staleness is {recipe.train.max_staleness} and the objective takes every token for the policy's "
            "own: objective.mismatch = 'token_tis' or objective.anchor = 'behavior' would correct for older weights"
        )
    lag = LagWarning(parts.display.note)
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
        lag.look(metrics.get("time/loop_lag_p99_s", 0.0))
        metrics |= {f"engine/{name}": value for name, value in engine.metrics().items() if not math.isnan(value)}
        metrics |= {"sync_gap": gap, "rollout_s": rollout_s}
        metrics |= {"version": float(engine.version), "step_s": time.perf_counter() - began}
        run.record("rl", step + 1, metrics)
        parts.display.advance(step + 1, metrics)
        await _after_step(parts, recovery, learner, memory, groups, step + 1)


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


async def _after_step(
    parts: Parts, recovery: Recovery, learner: Learner, memory: Memory, groups: Sequence[Group], step: int
) -> None:
    """Evaluate, save trajectories and checkpoints where due. A checkpoint comes last: what it says has happened."""
    train, every = parts.recipe.train, parts.recipe.evaluation.every
    last = step == train.steps
    if train.save_trajectories_every and step % train.save_trajectories_every == 0:
        with parts.run.timed("records"):
            write = partial(parts.run.save_trajectories, f"step-{step:05d}", groups, step=step)
            await _beside(parts.recipe, write)
    if last or (every and step % every == 0):
        await evaluate(parts, recovery, "end" if last else "", step)
    if last or (train.checkpoint_every and step % train.checkpoint_every == 0):
        await _beside(parts.recipe, partial(save, parts, learner, memory, step))
