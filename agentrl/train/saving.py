"""Checkpoints of a run.

What comes in: the run's parts, the learner and the objective's memory after a step. What goes out: a complete
checkpoint from which the run can go on; the oldest ones go.
"""

from __future__ import annotations

from agentrl.learner.checkpoint import keep_latest, save_checkpoint
from agentrl.learner.learner import Learner
from agentrl.objective.batch import Memory
from agentrl.train.disk import needed
from agentrl.train.parts import Parts


def save(parts: Parts, learner: Learner, memory: Memory, step: int) -> None:
    run = parts.run
    with run.timed("checkpoint"):
        facts = {"run": run.facts(), "memory": memory}
        with needed(run.checkpoints / f"step-{step:05d}", run.folder):
            save_checkpoint(run.checkpoints, step, parts.model, parts.tokenizer.save, learner.state(), facts)
        keep_latest(run.checkpoints, parts.recipe.train.keep_checkpoints)
