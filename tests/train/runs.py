"""The command, run in processes of its own, and what it leaves, for the tests beside this file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "agentrl", *map(str, arguments)]


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Until the run has recorded an RL step."""
    limit, path = time.monotonic() + 600, folder / "metrics.jsonl"
    while time.monotonic() < limit:
        ended = process.poll() is not None  # looked at first: it may record its last steps and end while we look
        if path.exists() and f'"stage": "rl", "step": {step},' in path.read_text():
            return
        assert not ended, process.stdout.read() if process.stdout else ""
        time.sleep(0.02)
    raise AssertionError(f"no step {step} in time")


def timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics without what a clock measured, and without what an engine counts from its own start on."""
    clocks = {"time", "rollout_s", "update_s", "step_s"}
    return {
        name: value for name, value in line.items() if name not in clocks and not name.startswith(("time/", "engine/"))
    }
