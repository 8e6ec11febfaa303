"""A real vLLM is killed in the middle of a run: the run says so, brings it back and goes on."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.processes import still_running
from tests.train.runs import command, lines, wait_for_step

pytest.importorskip(
    "vllm", reason="vLLM is not installed: `make setup-dev` does so on x86-64 Linux", exc_type=ImportError
)
SETTINGS = (
    *("warmup.steps=4", "evaluation.every=0", "evaluation.tasks=4", "train.steps=60", "train.checkpoint_every=0"),
    *("engine.kind=vllm", "engine.vllm.kv_cache_gib=0.25", "policy.tiny.head_dim=32", "rollout.retry.backoff_s=0.05"),
)


@pytest.mark.vllm
@pytest.mark.timeout(1500)
def test_a_killed_engine_is_started_again_and_nothing_is_lost(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [word for s in SETTINGS for word in ("--set", s)]
    process = subprocess.Popen(
        command("train", recipe_file, "--out", folder, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_step(process, folder, 5)
    below = psutil.Process(process.pid).children(recursive=True)
    max(below, key=lambda child: child.memory_info().rss).send_signal(signal.SIGKILL)  # the one with the model
    out, _ = process.communicate(timeout=800)
    assert process.returncode == 0, out
    assert "the engine broke and is started again (1 of at most 3 times)" in out
    steps = [line for line in lines(folder) if line["stage"] == "rl"]
    assert [line["step"] for line in steps] == list(range(1, 61))
    assert all(line["groups"] == 3 and line["episodes"] == 12 for line in steps)
    counted = json.loads((folder / "summary.json").read_text())["failures"]
    assert counted.get("failed_engine", 0) == sum(line.get("retried/failed_engine", 0) for line in steps)
    assert not still_running(below)
