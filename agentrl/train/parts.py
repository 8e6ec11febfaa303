"""What the stages of one run share, and what they build from it.

What comes in: a recipe and the parts that `build.py` made of it. What goes out: collectors, learners and the push of
weights, each told what it asks for and nothing else. What is opened here is closed with the run.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from agentrl.engine.base import Engine
from agentrl.env.base import Env
from agentrl.env.calling import invoke
from agentrl.env.task import Task
from agentrl.env.tasks import TaskSource
from agentrl.learner.learner import Learner
from agentrl.learner.sync import ModelWeights, Sync
from agentrl.objective.objective import Objective
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import HFTokenizer
from agentrl.rollout.collector import Collector, Demand
from agentrl.rollout.settings import RolloutSettings
from agentrl.seeds import derive_seed
from agentrl.train.build import make_env
from agentrl.train.display import Display
from agentrl.train.recipe import Recipe, TrainSettings
from agentrl.train.run import Run

if TYPE_CHECKING:
    from agentrl.learner.policy import PreTrainedModel

_PROBES = 4


@dataclass(frozen=True, slots=True)
class Parts:
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


def demand_of(objective: Objective, settings: TrainSettings) -> Demand:
    """Which groups the objective and the settings of a run ask for."""
    return Demand(
        useful=objective.useful,
        refill=objective.refill,
        max_staleness=settings.max_staleness,
        stale=settings.stale,
        steps=settings.steps,
    )


def make_collector(parts: Parts, engine: Engine, *, stage: str, rollout: RolloutSettings, **options: Any) -> Collector:
    recipe, tasks = parts.recipe, TaskSource(parts.env, "train")
    seed = derive_seed(recipe.seed, stage)
    collector = Collector(tasks, lambda: make_env(recipe), engine, parts.renderer, rollout, seed=seed, **options)
    parts.stack.push_async_callback(collector.close)
    return collector


def make_learner(parts: Parts, objective: Objective) -> Learner:
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


async def make_sync(parts: Parts, learner: Learner) -> Sync:
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
