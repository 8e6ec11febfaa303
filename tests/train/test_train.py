"""Whole runs: what they leave, how they go on, how they stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from transformers import AutoTokenizer

from agentrl.config import load_recipe
from agentrl.learner.sync import ModelWeights
from agentrl.rollout.records import read_trajectories
from tests.processes import still_running
from tests.train.conftest import small_recipe
from tests.train.runs import command, lines, run, timeless, wait_for_step, weights


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run that several tests look at."""
    root = tmp_path_factory.mktemp("finished")
    (root / "small.toml").write_text(small_recipe())
    run("train", root / "small.toml", "--out", root / "run", "--json", root / "summary.json")
    return root / "run"


def test_the_run_folder_holds_what_is_promised(finished: Path) -> None:
    recorded = lines(finished)
    assert [(e["stage"], e["step"]) for e in recorded] == [
        *(("warmup", step) for step in range(1, 9)),
        ("evaluation", 0),
        *(("rl", step) for step in (1, 2, 3)),
        ("evaluation", 3),
        *(("rl", step) for step in (4, 5, 6)),
        ("evaluation", 6),
    ]
    rl = [e for e in recorded if e["stage"] == "rl"]
    assert all(0 <= e["sync_gap"] < 1e-4 for e in rl)
    assert [e["version"] for e in rl] == [1, 2, 3, 4, 5, 6]
    assert all(e["behavior_abs_max"] < 1e-4 for e in rl)  # the sampler and the learner agree on every token
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == ["step-00000", "step-00004", "step-00006"]
    assert any((finished / "tensorboard").iterdir())
    summary = json.loads((finished / "summary.json").read_text())
    assert summary == json.loads((finished.parent / "summary.json").read_text())
    assert summary["seed"] == 0
    assert summary["engine"] == "hf"
    assert summary["failures"] == {}
    for stage in ("warmup", "end"):
        assert set(summary["success"][stage]) == {"mean", "low", "high", "n"}
        assert summary["success"][stage]["n"] == 12
    assert {"setup", "warmup", "rollout", "update", "sync", "evaluation"} <= set(summary["wall_s"])
    assert load_recipe(finished / "config.toml").name == "small"


def test_trajectories_can_be_read_back_and_opened_in_pandas(finished: Path) -> None:
    trajectories = read_trajectories(finished / "trajectories")
    assert len(trajectories) == 6 * 12
    versions = [set(t.segments[0].versions[t.segments[0].action_mask].tolist()) for t in trajectories]
    assert versions == [{step} for step in range(6) for _ in range(12)]
    frame = pd.read_parquet(finished / "trajectories" / "step-00001.parquet")
    assert len(frame) == 12
    assert (frame["step"] == 1).all()


def test_the_checkpoint_is_a_hugging_face_one_and_can_be_evaluated(finished: Path, tmp_path: Path) -> None:
    folder = finished / "checkpoints" / "step-00006"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "What is 3*4?"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    suite = tmp_path / "letters.toml"
    env = load_recipe(finished / "config.toml").env.id
    suite.write_text(
        f'name = "letters"\n[[scenario]]\nname = "six"\nenv = "{env}"\ntasks = 6\nmax_tokens_per_turn = 12'
    )
    done = run("eval", suite, "--policy", finished, "--json", tmp_path / "result.json")
    assert "success" in done.stdout
    overall = json.loads((tmp_path / "result.json").read_text())["overall"]
    assert (overall["episodes"], overall["failed"]) == (6, 0)


def test_a_killed_run_ends_with_the_same_weights_bit_for_bit(finished: Path, recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        command("train", recipe_file, "--out", folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_step(process, folder, 3)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    (folder / "metrics.jsonl").open("a").write('{"stage": "rl", "st')  # a line cut off by the kill
    run("train", "--resume", folder)
    expected, got = weights(finished / "checkpoints/step-00006"), weights(folder / "checkpoints/step-00006")
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
    for a, b in zip(lines(finished), lines(folder), strict=True):
        assert timeless(a) == timeless(b)
    assert (
        json.loads((folder / "summary.json").read_text())["success"]
        == (json.loads((finished / "summary.json").read_text())["success"])
    )


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 2])
def test_stopping_leaves_no_process_a_readable_folder_and_says_how_to_go_on(
    recipe_file: Path, tmp_path: Path, stop: signal.Signals, step: int
) -> None:
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        command("train", recipe_file, "--out", folder, "--set", "train.steps=500"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if step:
        wait_for_step(process, folder, step)
    else:
        while not (folder / "config.toml").exists():
            time.sleep(0.02)
        time.sleep(0.5)  # somewhere in the imports or the set-up
    process.send_signal(stop)
    _, errors = process.communicate(timeout=300)
    # A KeyboardInterrupt that Python met inside an exec() ends the process as SIGINT would; shells call both 130.
    assert process.returncode in (130, -signal.SIGINT)
    assert f"agentrl train --resume {folder}" in errors
    assert "Traceback" not in errors
    assert not still_running(p for p in psutil.process_iter() if _group(p) == process.pid)
    assert load_recipe(folder / "config.toml").name == "small"
    if step:
        assert [e["stage"] for e in lines(folder)].count("rl") >= step
        assert len(read_trajectories(folder / "trajectories")) >= step * 12


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1


@pytest.mark.parametrize("change", ["launch.device=cuda", "train.steps=-1"])
def test_a_refused_resume_touches_nothing(tmp_path: Path, recipe_file: Path, change: str) -> None:
    if change == "launch.device=cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU, so it is not refused")
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "config.toml").write_text(recipe_file.read_text())
    done = run("train", "--resume", folder, "--set", change, code=2)
    assert len(done.stderr.splitlines()) == 1
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "config.toml").read_text() == recipe_file.read_text()


def test_failures_in_evaluation_are_counted_and_stop_the_run(tmp_path: Path, recipe_file: Path) -> None:
    env = tmp_path / "held_out.py"
    env.write_text(
        "from agentrl.env.tasks import split_of\n"
        f"from agentrl.env.registry import make\nLetters = type(make({str(Path(__file__).with_name('letters.py'))!r} "
        "+ ':Letters'))\n"
        "class Broken(Letters):\n"
        "    async def reset(self, *, seed=None, options=None):\n"
        "        if split_of(options['task']) == 'test':\n"
        "            raise OSError('no held-out data')\n"
        "        return await super().reset(seed=seed, options=options)\n"
    )
    done = run("train", recipe_file, "--out", tmp_path / "run", "--set", f"env.id={env}:Broken", code=1)
    assert "7 of 12 episodes failed" in done.stderr  # the other five can change nothing any more
    assert "no held-out data" in done.stderr


def test_another_seed_is_another_run(finished: Path, recipe_file: Path, tmp_path: Path) -> None:
    run("train", recipe_file, "--out", tmp_path / "other", "--seed", 1, "--set", "train.steps=1")
    first = read_trajectories(finished / "trajectories" / "step-00001.parquet")
    second = read_trajectories(tmp_path / "other" / "trajectories" / "step-00001.parquet")
    assert {t.task_id for t in first} != {t.task_id for t in second}


def test_a_broken_sync_stops_the_run_with_the_reason(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agentrl.cli import main

    whole = ModelWeights.named_tensors
    pushes = []

    def stale_head(self: ModelWeights) -> Iterable[tuple[str, torch.Tensor]]:
        """From the second push on, the output layer of the first one."""
        tensors = dict(whole(self))
        pushes.append(tensors["lm_head.weight"].clone())
        return {**tensors, "lm_head.weight": pushes[0]}.items()

    monkeypatch.setattr(ModelWeights, "named_tensors", stale_head)
    code = main(["train", str(recipe_file), "--out", str(tmp_path / "run"), "--set", "learner.optimizer.lr=0.01"])
    captured = capsys.readouterr()
    assert code == 1
    assert "the engine and the learner disagree" in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert [e["stage"] for e in lines(tmp_path / "run")].count("rl") == 0


def test_every_step_moves_the_weights(finished: Path) -> None:
    assert all(e["grad_norm"] > 0 for e in lines(finished) if e["stage"] == "rl")


@pytest.mark.parametrize("preset", ["reinforce", "rloo", "grpo", "dr_grpo"])
def test_every_preset_raises_the_reward(recipe_file: Path, tmp_path: Path, preset: str) -> None:
    """From 15 % vowels, about what the demonstrations hold, to at least twice that within 40 steps."""
    groups, lr = "rollout.groups_per_step=6", "learner.optimizer.lr=0.004"
    settings = ("train.steps=50", groups, lr, f"objective.preset={preset}", "evaluation.every=0")
    run("train", recipe_file, "--out", tmp_path / "run", *(word for s in settings for word in ("--set", s)))
    rewards = [e["reward"] for e in lines(tmp_path / "run") if e["stage"] == "rl"]
    assert sum(rewards[-10:]) > 2 * sum(rewards[:10])
