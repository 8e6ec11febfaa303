"""Whole runs that play ahead while the learner learns, and runs whose machinery fails on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from agentrl.rollout.records import read_trajectories
from tests.processes import still_running
from tests.train.runs import command, lines, run, wait_for_step

AHEAD = ("warmup.steps=4", "evaluation.every=0", "evaluation.tasks=4", "train.steps=6", "train.checkpoint_every=0")


def train(recipe: Path, out: Path, *settings: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run("train", recipe, "--out", out, *(word for s in (*AHEAD, *settings) for word in ("--set", s)), code=code)


def test_a_run_that_plays_ahead_is_stale_by_no_more_than_it_may(recipe_file: Path, tmp_path: Path) -> None:
    train(recipe_file, tmp_path / "run", "train.max_staleness=2", "objective.mismatch=token_tis")
    steps = [line for line in lines(tmp_path / "run") if line["stage"] == "rl"]
    assert [line["groups"] for line in steps] == [3] * 6
    assert all(line["staleness_max"] <= 2 for line in steps)
    assert max(line["staleness_max"] for line in steps) > 0
    assert steps[-1]["ahead_groups"] == 0
    versions = set()
    for number in range(len(steps)):
        for trajectory in read_trajectories(tmp_path / f"run/trajectories/step-{number + 1:05d}.parquet"):
            for segment in trajectory.segments:
                versions |= {number - int(v) for v in segment.versions[segment.action_mask]}
    assert versions <= {0, 1, 2}
    assert versions - {0}


def test_on_policy_nothing_is_stale(recipe_file: Path, tmp_path: Path) -> None:
    train(recipe_file, tmp_path / "run", "train.steps=2")
    steps = [line for line in lines(tmp_path / "run") if line["stage"] == "rl"]
    assert all(line["staleness_max"] == 0 and "ahead_groups" not in line for line in steps)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_plays_ahead_stops_at_once_and_whole(
    recipe_file: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    settings = (*AHEAD, "train.steps=1000", "train.max_staleness=1")
    words = [word for s in settings for word in ("--set", s)]
    arguments = command("train", recipe_file, "--out", tmp_path / "run", *words)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_step(process, tmp_path / "run", 3)
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(stop)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    assert not still_running(below)
    assert json.loads((tmp_path / "run/summary.json").read_text())["failures"] == {}


@pytest.mark.parametrize(
    ("setting", "minded"),
    [("objective.preset=grpo", False), ("objective.mismatch=token_tis", True), ("objective.anchor=behavior", True)],
)
def test_a_run_that_corrects_for_nothing_says_so(recipe_file: Path, tmp_path: Path, setting: str, minded: bool) -> None:
    done = train(recipe_file, tmp_path / "run", "train.steps=1", "train.max_staleness=1", setting)
    assert ("takes every token for the policy's own" in done.stdout) != minded


@pytest.mark.parametrize("pause_s", [0.01, 0.02])
def test_a_second_interrupt_does_not_tear_the_tasks_apart(recipe_file: Path, tmp_path: Path, pause_s: float) -> None:
    settings = (*AHEAD, "train.steps=1000", "train.max_staleness=1")
    words = [word for s in settings for word in ("--set", s)]
    for attempt in range(5):
        folder = tmp_path / f"run-{attempt}"
        arguments = command("train", recipe_file, "--out", folder, *words)
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for_step(process, folder, 2)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(pause_s)
        process.send_signal(signal.SIGINT)
        late = time.monotonic() - began > 1  # held up for so long, the second counts as one that is meant
        out, _ = process.communicate(timeout=300)
        if not late:
            break
    assert process.returncode in (130, -signal.SIGINT), out  # the second where it came when all was done
    assert "Task" not in out
    assert "Traceback" not in out
    assert "go on with: agentrl train --resume" in out
