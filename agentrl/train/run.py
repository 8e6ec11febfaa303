"""A run's folder: what a run leaves for people and programs to read.

What comes in: metrics, trajectories, a summary. What goes out: files: `config.toml`, `metrics.jsonl` (one object a
line, with `stage` and `step`), TensorBoard events, `trajectories/*.parquet`, `checkpoints/`, `policy/` (where the run
began) and `summary.json`. Every line is flushed, so a killed run is readable. On a disk that is full, trajectories are
left out and counted; metrics that cannot be written end the run. Knows no model.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentrl.errors import ConfigError
from agentrl.evaluate.statistics import IntervalDict
from agentrl.rollout.records import write_trajectories
from agentrl.train.disk import Lines, needed, unwritten, write_whole
from agentrl.train.recipe import Recipe
from agentrl.train.summary import RunSummary
from agentrl.trajectory import Group, Trajectory

if TYPE_CHECKING:
    from agentrl.train.board import Board


class Run:
    """The folder of one run, open for writing.

    Args:
        folder: made if absent.
        after: the RL step of the checkpoint that the run goes on from; what was recorded of later steps is dropped.
            None: the run begins, and everything recorded is dropped.
        note: told what a person should know.

    Raises:
        RunStoppedError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, after: int | None = None, note: Callable[[str], None] = print) -> None:
        self.folder = folder
        self._after, self._note = after, note
        self.checkpoints, self.policy = folder / "checkpoints", folder / "policy"
        self._trajectories = folder / "trajectories"
        self._metrics_path = folder / "metrics.jsonl"
        with needed(self._metrics_path, folder):
            for made in (self.checkpoints, self._trajectories):
                made.mkdir(parents=True, exist_ok=True)
            self._forget_after(after)
            self._metrics = Lines(self._metrics_path)
        self._boards: dict[str, Board] = {}
        self.wall_s: dict[str, float] = defaultdict(float)
        self.failures: Counter[str] = Counter()
        self.success: dict[str, IntervalDict] = {}
        self.tool_share: dict[str, float] = {}
        self.unsaved_steps = 0  # steps whose trajectories could not be written

    def record(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append one step's metrics.

        Raises:
            RunStoppedError: they could not be written.
        """
        line = {"stage": stage, "step": step, "time": round(time.time(), 3)}
        line |= {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        with needed(self._metrics_path, self.folder):
            self._metrics.add(json.dumps(line))
        with needed(self.folder / "tensorboard", self.folder):
            self._board(stage).add(step, metrics)

    def save_trajectories(self, name: str, groups: Sequence[Group], **columns: Any) -> None:
        """Write the groups' trajectories to `trajectories/<name>.parquet`.

        Where that fails the run goes on without them: it is told once, and counted in `unsaved_steps`.
        """
        members: list[Trajectory] = [t for group in groups for t in group.trajectories]
        path = self._trajectories / f"{name}.parquet"
        try:
            write_trajectories(path, members, **columns)
        except OSError as error:
            self.unsaved_steps += 1
            if self.unsaved_steps == 1:
                self._note(f"{unwritten(path, error)}: the run goes on without records of its trajectories")

    def count_failures(self, trajectories: Iterable[Trajectory]) -> None:
        self.failures.update(t.outcome.value for t in trajectories if t.outcome.failed)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall seconds of the block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.wall_s[stage] += time.perf_counter() - began

    def facts(self) -> dict[str, Any]:
        """What a resumed run must know of the run so far."""
        return {
            "wall_s": dict(self.wall_s),
            "failures": dict(self.failures),
            "success": self.success,
            "tool_share": self.tool_share,
            "unsaved_steps": self.unsaved_steps,
        }

    def take_facts(self, facts: Mapping[str, Any]) -> None:
        """Take back what `facts` gave."""
        self.wall_s.update(facts["wall_s"])
        self.failures.update(facts["failures"])
        self.success, self.tool_share = dict(facts["success"]), dict(facts["tool_share"])
        self.unsaved_steps = facts.get("unsaved_steps", 0)

    def summary(self, recipe: Recipe) -> RunSummary:
        """The run so far."""
        return {
            "name": recipe.name,
            "seed": recipe.seed,
            "engine": recipe.engine.kind,
            "run": str(self.folder),
            "success": self.success,
            "tool_share": self.tool_share,
            "wall_s": {stage: round(seconds, 2) for stage, seconds in self.wall_s.items()},
            "failures": dict(self.failures),
            "unsaved_steps": self.unsaved_steps,
        }

    def write_summary(self, recipe: Recipe) -> None:
        """Write `summary.json`. Where that fails it is told: what the run was doing is not lost over it."""
        path = self.folder / "summary.json"
        try:
            write_whole(path, json.dumps(self.summary(recipe), indent=2) + "\n")
        except OSError as error:
            self._note(unwritten(path, error))

    def close(self) -> None:
        self._metrics.close()
        for board in self._boards.values():
            board.close()

    def _board(self, stage: str) -> Board:
        """TensorBoard's writer of a stage; what a stopped run wrote of later RL steps is hidden."""
        from agentrl.train.board import Board

        if stage not in self._boards:
            purge = None if stage == "warmup" or self._after is None else self._after + 1
            self._boards[stage] = Board(self.folder / "tensorboard" / stage, purge=purge)
        return self._boards[stage]

    def _forget_after(self, after: int | None) -> None:
        """Drop what was recorded of RL steps after this one; of everything, where the run begins anew."""
        for file in self._trajectories.glob("step-*.parquet"):
            if after is None or int(file.stem.removeprefix("step-")) > after:
                file.unlink()
        if after is None:
            shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        if not self._metrics_path.exists():
            return
        lines = self._metrics_path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if after is not None and _recorded_by(line, after)]
        write_whole(self._metrics_path, "".join(line + "\n" for line in kept))


def _recorded_by(line: str, step: int) -> bool:
    """Whether a line of metrics was written by the end of an RL step; one that a kill cut off was not."""
    try:
        entry = json.loads(line)
        return bool(entry["stage"] == "warmup" or entry["step"] <= step)
    except (ValueError, TypeError, KeyError):
        return False


def new_folder(recipe: Recipe) -> Path:
    """The folder of a new run: `recipe.out`, or the first free `runs/<name>-seed<seed>[-N]`.

    Raises:
        ConfigError: `recipe.out` already holds a run.
    """
    if recipe.out:
        folder = Path(recipe.out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"out = {recipe.out!r} exists and is not an empty folder: give another --out, or go on with that run: "
                f"--resume {recipe.out}"
            )
        return folder
    base = Path("runs") / f"{recipe.name}-seed{recipe.seed}"
    number = 1
    folder = base
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder
