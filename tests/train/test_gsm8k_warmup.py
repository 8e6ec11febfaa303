"""A short warm-up on real GSM8K episodes: the gold calculator calls of the data, imitated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentrl.cli import main
from agentrl.rollout.records import read_trajectories


@pytest.mark.usefixtures("real_data")
def test_the_loss_falls_on_real_episodes(tmp_path: Path) -> None:
    settings = {
        "policy.path": "tiny",
        "policy.tiny.hidden": 64,
        "policy.tiny.layers": 2,
        "policy.tiny.heads": 2,
        "engine.kind": "hf",
        "engine.max_context": 3000,
        "rollout.max_tokens_per_episode": 3000,
        "rollout.max_tokens_per_turn": 600,
        "rollout.groups_per_step": 2,
        "rollout.group_size": 2,
        "warmup.steps": 12,
        "warmup.episodes_per_step": 8,
        "warmup.optimizer.lr": 0.01,
        "train.steps": 1,
        "evaluation.tasks": 4,
        "learner.micro_batch_tokens": 4096,
        "launch.threads": 1,
    }
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert main(["train", "gsm8k", "--out", str(tmp_path / "run"), *changes]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["stage"] == "warmup"]
    assert losses[-1] < 0.8 * losses[0]
    assert all(line["demo/success"] == 1.0 for line in lines if line["stage"] == "warmup")
    assert len(read_trajectories(tmp_path / "run" / "trajectories")) == 4
