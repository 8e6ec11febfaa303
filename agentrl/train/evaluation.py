"""Evaluation of a run on its held-out tasks.

What comes in: the run's parts. What goes out: greedy success with its interval, in the records and in the summary.
"""

from __future__ import annotations

from agentrl.env.base import Env
from agentrl.env.task import Task
from agentrl.env.tasks import TaskSource
from agentrl.errors import DataError
from agentrl.evaluate.evaluate import evaluate_tasks
from agentrl.train.build import make_env
from agentrl.train.parts import Parts
from agentrl.train.recipe import EvaluationSettings
from agentrl.train.recovery import Recovery


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


async def evaluate(parts: Parts, recovery: Recovery, name: str, step: int) -> None:
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
            on_done=lambda trajectory: run.count_failures([trajectory]),
        )
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
