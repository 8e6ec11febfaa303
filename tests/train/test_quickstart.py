"""The quickstart's promise, kept for three seeds and on both engines. Minutes each: `make test-slow`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl.config import load_recipe
from agentrl.env.registry import make
from agentrl.env.tasks import TaskSource
from agentrl.rollout.records import read_trajectories

RECIPE = Path(__file__).parents[2] / "scenarios" / "train" / "calculator.toml"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("seed", "engine"), [(0, "hf"), (1, "hf"), (2, "hf"), pytest.param(0, "vllm", marks=pytest.mark.vllm)]
)
def test_the_agent_finds_out_that_calling_the_tool_pays(tmp_path: Path, seed: int, engine: str) -> None:
    if engine == "vllm":
        pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = tmp_path / "run"
    changes = ["--set", f"engine.kind={engine}", "--seed", str(seed), "--out", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "agentrl", "train", str(RECIPE), *changes]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    print(f"\nseed {seed}, {engine}: {summary['success']} {summary['wall_s']}")
    assert summary["success"]["warmup"]["n"] >= 400
    assert summary["success"]["warmup"]["mean"] <= 0.60
    assert summary["success"]["end"]["n"] >= 400
    assert summary["success"]["end"]["mean"] >= 0.95
    assert summary["tool_share"]["end"] > summary["tool_share"]["warmup"] + 0.5
    assert summary["failures"] == {}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert max(line["sync_gap"] for line in lines if line["stage"] == "rl") < 1e-4
    recipe = load_recipe(folder / "config.toml")
    held_out = {task.id for task in TaskSource(make("calculator", **recipe.env.settings), "test").distinct(400)}
    trained = {trajectory.task_id for trajectory in read_trajectories(folder / "trajectories")}
    assert trained
    assert not held_out & trained
