"""Whole runs in the face of real faults: a full disk, tools that hang, a collector and a learner of unequal speed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentrl.learner.checkpoint import save_checkpoint
from agentrl.rollout.records import read_trajectories
from tests.processes import still_running
from tests.train.runs import command, lines, run, wait_for_step, weights

QUICK = ("warmup.steps=2", "evaluation.every=0", "evaluation.tasks=4", "train.checkpoint_every=0")
Mount = Callable[[Path, str], None]


def words(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture
def small_disk() -> Iterator[Mount]:
    """Mounts a disk of a size at a folder: for the test's time, or until it is mounted with another size."""
    with ExitStack() as mounted:

        def mount(folder: Path, size: str) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            again = folder.is_mount()
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"{'remount,' if again else ''}size={size}", "tmpfs", folder],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
            if not again:
                mounted.callback(subprocess.run, ["umount", folder], check=True)

        try:
            yield mount
        except FileNotFoundError:
            pytest.skip("there is no `mount` here")


def size_of(folder: Path) -> int:
    """Bytes, in whole pages."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.iterdir())


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.fixture
def begun(recipe_file: Path, tmp_path: Path) -> Path:
    """A run's folder before its first step: `--resume` begins it, so that a disk may be mounted in it before."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text(recipe_file.read_text())
    return folder


def test_without_room_for_trajectories_a_run_goes_on_and_counts_them(begun: Path, small_disk: Mount) -> None:
    small_disk(begun / "trajectories", "100k")
    done = run("train", "--resume", begun, *words(*QUICK, "train.steps=8"))
    written = sorted((begun / "trajectories").iterdir())
    summary = json.loads((begun / "summary.json").read_text())
    assert 0 < len(written) < 8
    assert summary["unsaved_steps"] == 8 - len(written)
    assert all(len(read_trajectories(file)) == 12 for file in written)
    assert [line["step"] for line in lines(begun) if line["stage"] == "rl"] == list(range(1, 9))
    told = [line for line in done.stdout.splitlines() if "could not be written" in line]
    assert len(told) == 2, told
    missing = f"step-{len(written) + 1:05d}.parquet could not be written (No space left on device; 0.0 MB free there)"
    assert missing in told[0]
    assert told[1] == f"steps whose trajectories could not be written: {summary['unsaved_steps']}"
    assert "Traceback" not in done.stdout + done.stderr


def test_without_room_for_a_checkpoint_a_run_stops_and_ends_the_same_once_there_is_room(
    begun: Path, recipe_file: Path, small_disk: Mount, tmp_path: Path
) -> None:
    settings = words(*QUICK, "train.steps=3", "train.checkpoint_every=2")
    run("train", recipe_file, "--out", tmp_path / "whole", *settings)
    checkpoints = begun / "checkpoints"
    begin, later = (size_of(tmp_path / "whole/checkpoints" / name) for name in ("step-00000", "step-00003"))
    small_disk(checkpoints, str(begin + int(0.6 * later)))  # the optimiser's state does not fit
    done = run("train", "--resume", begun, *settings, code=1)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"error: {checkpoints / 'step-00002'} could not be written (" in done.stderr
    assert "MB free there)" in done.stderr
    assert f"go on with: agentrl train --resume {begun}" in done.stderr
    assert [folder.name for folder in checkpoints.iterdir()] == ["step-00000"]
    small_disk(checkpoints, "64m")
    run("train", "--resume", begun, *settings)
    ours, theirs = weights(checkpoints / "step-00003"), weights(tmp_path / "whole/checkpoints/step-00003")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("size", ["64k", "300k"], ids=["the model does not fit", "the state does not fit"])
def test_a_checkpoint_that_does_not_fit_leaves_nothing(small_disk: Mount, tmp_path: Path, size: str) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 300, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads))
    small_disk(tmp_path / "checkpoints", size)
    with pytest.raises(OSError, match=r"."):
        save_checkpoint(tmp_path / "checkpoints", 1, model, lambda folder: None, {"x": torch.zeros(200_000)}, {})
    assert not list((tmp_path / "checkpoints").iterdir())


def test_without_room_for_metrics_a_run_stops_and_goes_on_once_there_is_room(begun: Path, small_disk: Mount) -> None:
    config = (begun / "config.toml").read_text()
    small_disk(begun, "64m")
    (begun / "config.toml").write_text(config)
    settings = words(*QUICK, "train.save_trajectories_every=0", "train.checkpoint_every=2")
    process = subprocess.Popen(
        command(
            "train", "--resume", begun, *settings, "--set", "train.steps=1000", "--set", "train.checkpoint_every=0"
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(process, begun, 2)
    below = psutil.Process(process.pid).children(recursive=True)
    fill(begun / "filler")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert errors.count("\n") == 1, errors
    assert "could not be written (No space left on device; 0.0 MB free there)" in errors
    assert f"go on with: agentrl train --resume {begun}" in errors
    assert not still_running(below)
    assert (begun / "metrics.jsonl").read_text().endswith("\n")
    steps = [line["step"] for line in lines(begun) if line["stage"] == "rl"]
    assert steps == list(range(1, len(steps) + 1))
    (begun / "filler").unlink()
    run("train", "--resume", begun, *settings, "--set", "train.steps=3")
    assert [line["step"] for line in lines(begun) if line["stage"] == "rl"] == [1, 2, 3]


ENVIRONMENT = """
import asyncio, subprocess, time
from pathlib import Path
from agentrl.env.registry import make
Letters = type(make({letters!r}))
resets = 0

class Slow(Letters):
    async def step(self, action):
        await asyncio.sleep(0.02)
        return await super().step(action)

class Hangs(Letters):
    '''From the three hundredth episode on, which is in the first RL steps, a step never comes back.'''
    async def reset(self, **options):
        global resets
        resets += 1
        return await super().reset(**options)

    async def step(self, action):
        if resets > 300:
            Path({marker!r}).touch()
            await self.hang()
        return await super().step(action)

    async def hang(self):
        await asyncio.sleep(3600)

class Blocks(Hangs):
    def step(self, action):
        if resets > 300:
            Path({marker!r}).touch()
            time.sleep(3600)
        return Letters.step(self, action)

class Processes(Hangs):
    def step(self, action):
        if resets > 300:
            Path({marker!r}).touch()
            subprocess.run(["sh", "-c", "sleep 3600; true"])
        return Letters.step(self, action)
"""


@pytest.fixture
def environment(tmp_path: Path) -> tuple[Path, Path]:
    """A module of environments, and the file that those that hang make when they do."""
    path, marker = tmp_path / "faulty.py", tmp_path / "hanging"
    letters = f"{Path(__file__).with_name('letters.py')}:Letters"
    path.write_text(ENVIRONMENT.format(letters=letters, marker=str(marker)))
    return path, marker


@pytest.mark.parametrize(("kind", "ahead"), [("Hangs", 0), ("Blocks", 0), ("Hangs", 1), ("Processes", 1)])
def test_ctrl_c_ends_a_run_at_once_whose_environment_hangs(
    environment: tuple[Path, Path], recipe_file: Path, tmp_path: Path, kind: str, ahead: int
) -> None:
    module, marker = environment
    settings = words(*QUICK, f"env.id={module}:{kind}", f"train.max_staleness={ahead}", "rollout.groups_per_step=8")
    process = subprocess.Popen(
        command("train", recipe_file, "--out", tmp_path / "run", *settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + 400
    while not marker.exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.05)
    assert marker.exists()
    time.sleep(0.2)
    while len(below := psutil.Process(process.pid).children(recursive=True)) < (2 if kind == "Processes" else 0):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors == f"stopped; go on with: agentrl train --resume {tmp_path / 'run'}\n"
    assert not still_running(below)


@pytest.mark.parametrize(
    "slow", [("env.id={module}:Slow",), ("learner.epochs=8", "learner.micro_batch_tokens=64")], ids=["env", "learner"]
)
def test_whoever_is_slower_every_episode_is_learnt_from_once(
    environment: tuple[Path, Path], recipe_file: Path, tmp_path: Path, slow: tuple[str, ...]
) -> None:
    settings = words(*QUICK, "train.max_staleness=2", *(s.format(module=environment[0]) for s in slow))
    run("train", recipe_file, "--out", tmp_path / "run", *settings)
    steps = [line for line in lines(tmp_path / "run") if line["stage"] == "rl"]
    assert [(line["groups"], line["episodes"]) for line in steps] == [(3, 12)] * 6
    assert all(line["staleness_max"] <= 2 and line["ahead_groups"] <= 6 for line in steps)
    trajectories = read_trajectories(tmp_path / "run")
    assert len({t.seed for t in trajectories}) == len(trajectories) == 72
    assert not any(t.outcome.failed for t in trajectories)
