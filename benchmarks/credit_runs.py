"""One training run of the credit benchmark, by the loop that `agentrl train` runs.

What comes in: a method, a seed, the number of stops, a learning rate. What goes out: a record: the curve of success over
sampled tokens. The policy that imitation made is kept in a folder by seed and stops, so all methods begin from the
same weights.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agentrl.config import load_recipe
from agentrl.learner.settings import PolicySettings
from agentrl.train.display import PlainDisplay
from agentrl.train.loop import train
from agentrl.train.plot import read_metrics
from agentrl.train.recipe import ObjectiveSettings, Recipe, WarmupSettings

RECIPE = Path(__file__).parent.parent / "scenarios" / "train" / "courier.toml"


@dataclass(frozen=True)
class Method:
    label: str
    preset: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run. Its `key` says whether a record of it is there already."""

    method: str
    seed: int
    lr: float
    steps: int
    env: Mapping[str, Any] = field(default_factory=dict)  # settings of the environment

    @property
    def key(self) -> str:
        return json.dumps([self.method, self.seed, self.lr, self.steps, dict(self.env)], sort_keys=True)


def run(job: Job, method: Method, warm: Path) -> dict[str, Any]:
    """Train, and give the record: tokens sampled before each evaluation, held-out greedy success, sampled success."""
    recipe = _recipe(job)
    policy = warm_policy(recipe, warm)
    recipe = replace(
        recipe,
        policy=PolicySettings(path=str(policy)),
        warmup=WarmupSettings(),
        objective=ObjectiveSettings(preset=method.preset, overrides=method.overrides),
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        entries = _train(recipe, Path(folder))
    rl = [e for e in entries if e["stage"] == "rl"]
    evaluations = {e["step"]: e["success"] for e in entries if e["stage"] == "evaluation"}
    tokens, curve = 0.0, [{"tokens": 0.0, "greedy": evaluations[0]}]
    for entry in rl:
        tokens += entry["sampled_tokens"]
        point = {"tokens": tokens, "sampled": entry["success"]}
        if entry["step"] in evaluations:
            point["greedy"] = evaluations[entry["step"]]
        curve.append(point)
    return {
        "key": job.key,
        "method": job.method,
        "seed": job.seed,
        "lr": job.lr,
        "env": dict(job.env),
        "wall_s": round(time.perf_counter() - began, 1),
        "curve": curve,
    }


def warm_policy(recipe: Recipe, warm: Path) -> Path:
    """The policy after imitation, made if it is not there; other processes wait for the one that makes it."""
    settings = json.dumps(dict(recipe.env.settings), sort_keys=True)
    name = "".join(c if c.isalnum() or c in "._-" else "" for c in f"{recipe.seed}-{settings}")
    made = warm / name
    warm.mkdir(parents=True, exist_ok=True)
    with (warm / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=warm) as folder:
                _train(replace(recipe, train=replace(recipe.train, steps=0)), Path(folder))
                shutil.copytree(Path(folder) / "checkpoints" / "step-00000", Path(folder) / "policy-made")
                (Path(folder) / "policy-made").rename(made)
    return made


def _recipe(job: Job) -> Recipe:
    recipe = load_recipe(RECIPE, [f"seed={job.seed}", "launch.threads=1", "launch.device=cpu"])
    optimizer = replace(recipe.learner.optimizer, lr=job.lr)
    return replace(
        recipe,
        env=replace(recipe.env, settings={**recipe.env.settings, **job.env}),
        learner=replace(recipe.learner, optimizer=optimizer),
        train=replace(recipe.train, steps=job.steps),
    )


def _train(recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    with (folder / "log.txt").open("w") as log, PlainDisplay(log) as display:
        asyncio.run(train(recipe, folder, display=display))
    return read_metrics(folder)
