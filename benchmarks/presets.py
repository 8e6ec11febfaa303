"""Trains the quickstart's task with every preset: how many steps until 0.9 of the held-out tasks are solved?

What comes in: scenarios/train/calculator.toml as it is, with `launch.threads = 1`. What goes out: a line a run in
benchmarks/results/presets.jsonl, and docs/presets.md, made from them.

All presets of a seed start from one policy, warmed up once. Greedy success is measured every EVERY steps on TASKS
held-out tasks; the success of sampled play is that of the training episodes. A run ends when it reached GOAL at two
evaluations running, after LEAST steps or later, and at MOST steps at the latest, so the learning rate falls to 0 over
MOST steps for all. A run whose line is there is skipped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

from presets_table import RESULTS, Row, read_rows, write_table

from agentrl.objective.loading import load_spec, preset_names

GOAL, EVERY, TASKS, LEAST, MOST = 0.9, 2, 200, 10, 40
LIMITS = {"tasks": TASKS, "every": EVERY, "least": LEAST, "most": MOST}  # as the page tells them
LAST = 5  # steps that the success of sampled play is averaged over
TEACHER_STEPS = 20  # of GRPO from the same start: what the teacher has that its students have not
RECIPE = Path(__file__).parent.parent / "scenarios/train/calculator.toml"
RUNS = Path("runs/presets")
MAIN = ("rloo", "ppo", "grpo", "dr_grpo", "gspo", "gigpo", "turn_rloo", "peer_credit", "state_credit")
NOT_TRAINED = {
    "sft": "on a policy's own samples its gradient is 0 in expectation; `[warmup]` has its loss",
}
TEACHER = "learner.teacher={teacher}"
OVERRIDES: Mapping[str, Sequence[str]] = {  # beside objective.preset; the same number of episodes a step for all
    "spo": ("rollout.group_size=1", "rollout.groups_per_step=128"),
    "vapo": ("objective.credit={name = 'gae_length', alpha = 1.0, gamma = 1.0}",),
    "opd": (TEACHER,),
    "minillm": (TEACHER,),
    "grpo_opd": (TEACHER,),
}


class Enough(Exception):
    """The run has shown what it was to show."""


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(train_one(*options.worker)))
        return
    done = {(row["preset"], row["seed"]) for row in read_rows() if "error" not in row}
    wanted = [(p, s) for s in (0, 1, 2) for p in options.presets if s in options.seeds and (s == 0 or p in MAIN)]
    todo = [run for run in wanted if run not in done and run[0] not in NOT_TRAINED]
    print(
        f"{len(todo)} runs to do, {len(wanted) - len(todo)} done or not for training; {options.jobs} at once",
        flush=True,
    )
    began = time.monotonic()
    prepared = [("warmup", seed) for seed in sorted({s for _, s in todo})]
    prepared += [("teacher", s) for s in sorted({s for p, s in todo if TEACHER in OVERRIDES.get(p, ())})]
    with ThreadPoolExecutor(options.jobs) as pool:
        for stage in ("warmup", "teacher"):
            list(pool.map(lambda run: _prepare(*run), [run for run in prepared if run[0] == stage]))
        for row in pool.map(lambda run: _run(*run), todo):
            shown = row.get("error") or f"0.9 after {row['steps_to_goal']} steps, {row['final']['mean']:.3f} at the end"
            print(f"{time.monotonic() - began:6.0f} s  {row['preset']} seed {row['seed']}: {shown}", flush=True)
    write_table(NOT_TRAINED, **LIMITS)


def train_one(preset: str, seed: str) -> Row:
    """Train in this process; "warmup" and "teacher" are what the others start from."""
    from agentrl.config.recipes import load_recipe
    from agentrl.train.loop import train

    folder = RUNS / f"{preset}-seed{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    recipe = load_recipe(RECIPE, overrides(preset, int(seed)))
    least = float("inf") if preset in ("warmup", "teacher") else LEAST
    began = time.perf_counter()
    with suppress(Enough):
        asyncio.run(train(recipe, folder, display=Watch(folder, least)))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    row = summed_up(lines)
    return {"preset": preset, "seed": int(seed), **row, "wall_s": round(time.perf_counter() - began, 1)}


def overrides(preset: str, seed: int) -> list[str]:
    """The recipe's settings that differ from the quickstart's."""
    common = [f"seed={seed}", "launch.threads=1", "launch.device=cpu", "train.checkpoint_every=0"]
    common += ["train.save_trajectories_every=0", f"evaluation.tasks={TASKS}"]
    if preset == "warmup":
        return [*common, "train.steps=0"]
    start = [f"policy={{path = {json.dumps(str(_start('warmup', seed, 0)))}}}", "warmup.steps=0"]
    if preset == "teacher":
        return [*common, *start, f"train.steps={TEACHER_STEPS}"]
    teacher = str(_start("teacher", seed, TEACHER_STEPS))
    own = [each.replace("{teacher}", teacher) for each in OVERRIDES.get(preset, ())]
    every = [f"train.steps={MOST}", f"evaluation.every={EVERY}", f"objective.preset={preset}"]
    return [*common, *start, *every, *own]


def summed_up(lines: Sequence[Mapping[str, Any]]) -> Row:
    """What a run's metrics come to."""
    evaluations = [line for line in lines if line["stage"] == "evaluation"]
    last = evaluations[-1]
    to_goal = next((line["step"] for line in evaluations if line["success"] >= GOAL), None)
    steps = [line for line in lines if line["stage"] == "rl"]
    until = [line for line in steps if line["step"] <= (to_goal or last["step"])]
    return {
        "steps_to_goal": to_goal,
        "steps": last["step"],
        "episodes": int(sum(line["episodes"] for line in until)),
        "tokens": int(sum(line["sampled_tokens"] for line in until)),
        "final": {**{key: round(last[key], 4) for key in ("low", "high")}, "mean": last["success"], "n": TASKS},
        "sampled": round(mean(line["success"] for line in steps[-LAST:]), 4) if steps else None,
        "curve": [[line["step"], line["success"]] for line in evaluations],
        "sampled_curve": [round(line["success"], 3) for line in steps],
    }


class Watch:
    """A silent display that ends a run which has reached the goal for good, after `least` steps or later."""

    def __init__(self, folder: Path, least: float) -> None:
        self._metrics = folder / "metrics.jsonl"
        self._least = least

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None:
        lines = self._metrics.read_text().splitlines() if self._metrics.exists() else []
        evaluations = [line for line in map(json.loads, lines) if line["stage"] == "evaluation"]
        latest = evaluations[-2:]
        if latest and latest[-1]["step"] >= self._least and all(line["success"] >= GOAL for line in latest):
            raise Enough

    def finish(self, summary: object) -> None: ...

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None: ...


def _start(what: str, seed: int, step: int) -> Path:
    return (RUNS / f"{what}-seed{seed}" / "checkpoints" / f"step-{step:05d}").absolute()


def _prepare(what: str, seed: int) -> None:
    if _start(what, seed, TEACHER_STEPS if what == "teacher" else 0).exists():
        return
    done = _worker(what, seed)
    if done.returncode:
        raise SystemExit(f"{what} of seed {seed} did not end:\n{done.stderr[-2000:]}")


def _run(preset: str, seed: int) -> Row:
    done = _worker(preset, seed)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        row: Row = {"preset": preset, "seed": seed, "error": reason[-300:]}
    else:
        row = json.loads(done.stdout.splitlines()[-1])
        row["overrides"] = list(OVERRIDES.get(preset, ()))
        shutil.rmtree(RUNS / f"{preset}-seed{seed}", ignore_errors=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return row


def _worker(preset: str, seed: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, "--worker", preset, str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = preset_names()
    parser.add_argument("--presets", type=lambda text: text.split(","), default=names, help="a,b; default: all")
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, of one thread each")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.worker:
        for name in options.presets:
            load_spec(name)  # an unknown name ends here, before anything is trained
    return options


if __name__ == "__main__":
    main()
