"""One training run of the credit benchmark, by the loop that `agentrl train` runs.

What comes in: a job (journey, method, seed, learning rate). What goes out: a record: success over
sampled tokens. The policy that imitation makes is kept, by seed and journey, so all methods begin from the same one.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parent.parent / "scenarios/train/courier.toml"
RUNS = Path("runs/credit")


@dataclass(frozen=True)
class Method:
    label: str
    preset: str
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of the preset's slots


METHODS: Mapping[str, Method] = {
    "grpo": Method("outcome broadcast of the whole return: GRPO", "grpo"),
    "rloo_outcome": Method(
        "outcome broadcast of the outcome part alone: RLOO",
        "rloo",
        {"credit": {"name": "outcome_broadcast", "parts": "outcome"}},
    ),
    "return_to_go": Method("turn return-to-go, leave-one-out", "rloo", {"credit": "rtg_turn"}),
    "mt_grpo": Method("MT-GRPO", "mt_grpo"),
    "gigpo": Method("GiGPO", "gigpo"),
    "bilevel_ppo": Method("bi-level GAE", "bilevel_ppo"),
    "peer_credit": Method("ours: peer_credit", "peer_credit"),
    "state_credit": Method("ours: state_credit", "state_credit"),
}


JOURNEYS: Mapping[str, Sequence[str]] = {  # settings of the recipe
    "tips": ("env.settings.forks=6", "env.settings.tip=1.0"),
    "long": (
        *("env.settings.forks=12", "env.settings.tip=0.1", "rollout.group_size=16", "train.steps=60"),
        *("engine.max_context=512", "rollout.max_tokens_per_episode=512", "evaluation.every=2"),
    ),
}


@dataclass(frozen=True)
class Job:
    """One run; equal jobs give equal records, but for the time they take."""

    journey: str
    method: str
    seed: int
    lr: float

    @property
    def key(self) -> str:
        return json.dumps([self.journey, self.method, self.seed, self.lr])

    @property
    def start(self) -> Path:
        """The policy that the run begins from."""
        return RUNS / f"start-{self.journey}-seed={self.seed}"


def warm_up(job: Job) -> None:
    """Make the policy that the job begins from."""
    with tempfile.TemporaryDirectory() as folder:
        _train([*_settings(job), "train.steps=0"], Path(folder))
        made = Path(folder) / "checkpoints/step-00000"
        part = job.start.with_name(f".making-{job.start.name}")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(made, part)
        part.rename(job.start)


def run(job: Job) -> dict[str, Any]:
    """Train, and give the record: [tokens sampled before, greedy success on held-out tasks] of each evaluation, and
    [tokens sampled before, success of the step's own episodes] of each step."""
    method = METHODS[job.method]
    settings = [
        f"policy={{path = {json.dumps(str(job.start))}}}",
        "warmup.steps=0",
        f"learner.optimizer.lr={job.lr}",
        f"objective={{{', '.join(_toml(k, v) for k, v in {'preset': method.preset, **method.overrides}.items())}}}",
    ]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        entries = _train([*_settings(job), *settings], Path(folder))
    tokens = [0]
    steps = [entry for entry in entries if entry["stage"] == "rl"]
    for entry in steps:
        tokens.append(tokens[-1] + int(entry["sampled_tokens"]))
    return {
        "key": job.key,
        "journey": job.journey,
        "method": job.method,
        "seed": job.seed,
        "lr": job.lr,
        "tokens": tokens[-1],
        "greedy": [[tokens[e["step"]], round(e["success"], 4)] for e in entries if e["stage"] == "evaluation"],
        "sampled": [[tokens[e["step"] - 1], round(e["success"], 4)] for e in steps],
        "wall_s": round(time.perf_counter() - began, 1),
    }


def _settings(job: Job) -> list[str]:
    return [f"seed={job.seed}", "launch.threads=1", "launch.device=cpu", *JOURNEYS[job.journey]]


def _toml(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{key} = {{{', '.join(_toml(k, v) for k, v in value.items())}}}"
    return f"{key} = {json.dumps(value)}"


def _train(overrides: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    from agentrl.config import load_recipe
    from agentrl.train.display import PlainDisplay
    from agentrl.train.loop import train
    from agentrl.train.plot import read_metrics

    recipe = load_recipe(RECIPE, overrides)
    with (folder / "log.txt").open("w") as log, PlainDisplay(log) as display:
        asyncio.run(train(recipe, folder, display=display))
    return read_metrics(folder)
