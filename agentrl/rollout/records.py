"""Trajectories on disk: one Parquet file, one row an episode.

What comes in: trajectories. What goes out: a file that `pandas.read_parquet` opens, and from which
`read_trajectories` gives equal trajectories back: token ids, masks, log-probabilities, versions and rewards bit for
bit. A file is there whole or not at all. Knows no environment and no engine.

The columns: `task_id group_id seed outcome reward error n_turns n_tokens n_action_tokens`; `token_ids action_mask
logprobs versions` (for each segment a list); `turns` (a list of structs); `reward_kinds` and `metrics` (maps);
`messages` (JSON). Reading trajectories back ignores the columns `n_*` and any others the writer added for people. A
field of a turn that a file does not have yet is read as its default.
"""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from agentrl.errors import DataError, MissingDependencyError
from agentrl.trajectory import Outcome, Segment, ToolUse, Trajectory, Turn

_TOKEN_FIELDS = {"token_ids": np.int64, "action_mask": np.bool_, "logprobs": np.float32, "versions": np.int64}
_COUNTS = ("n_turns", "n_tokens", "n_action_tokens")
_READ = (
    *("task_id", "group_id", "seed", "outcome", "reward", "error"),
    *(*_TOKEN_FIELDS, "turns", "reward_kinds", "metrics", "messages"),
)


def write_trajectories(path: str | Path, trajectories: Sequence[Trajectory], **columns: Any) -> Path:
    """Write a Parquet file and return its path; missing folders are made, a file of that name is replaced.

    Args:
        path: of the file, usually ending in `.parquet`.
        trajectories: one row each, in this order.
        columns: further columns (step, stage, ...): one value for all rows, or a list or tuple with one for each.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        ValueError: a further column has a taken name or a wrong length.
    """
    pa, parquet = _pyarrow()
    table = pa.table({**_table(pa, trajectories), **_further(trajectories, columns)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("wb") as file:
            parquet.write_table(table, file, compression="zstd", write_page_checksum=True)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return path


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Read a file, or every `*.parquet` of a folder (a run's, or its `trajectories`) in the order of their names.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        DataError: nothing is there, or a file is broken or holds something else; it is named.
    """
    path = Path(path)
    if (path / "trajectories").is_dir():
        path = path / "trajectories"
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise DataError(
                f"there is no .parquet file in {path}: give a run's `trajectories` folder or one of its files"
            )
        return [trajectory for file in files for trajectory in read_trajectories(file)]
    if not path.exists():
        raise DataError(f"there is no file {path}: give a run's `trajectories` folder or one of its files")
    pa, parquet = _pyarrow()
    try:
        schema = parquet.read_schema(path)
        missing = [name for name in _READ if name not in schema.names]
        if missing:
            raise DataError(f"{path} is not a file of trajectories: it has no column {', '.join(missing)}")
        table = parquet.read_table(path, columns=list(_READ), page_checksum_verification=True).combine_chunks()
        return _trajectories(table)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is broken and cannot be read as trajectories: {error}") from error


def _table(pa: Any, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """All columns as Arrow arrays."""
    return {
        "task_id": _strings(pa, [t.task_id for t in trajectories]),
        "group_id": _strings(pa, [t.group_id for t in trajectories]),
        "seed": pa.array([t.seed for t in trajectories], pa.int64()),
        "outcome": _strings(pa, [t.outcome.value for t in trajectories]),
        "reward": pa.array([t.reward for t in trajectories], pa.float64()),
        "error": _strings(pa, [t.error for t in trajectories]),
        "n_turns": pa.array([len(t.turns) for t in trajectories], pa.int64()),
        "n_tokens": pa.array([t.n_tokens for t in trajectories], pa.int64()),
        "n_action_tokens": pa.array([t.n_action_tokens for t in trajectories], pa.int64()),
        **_tokens(pa, [t.segments for t in trajectories]),
        "turns": _turns(pa, [t.turns for t in trajectories]),
        "reward_kinds": _maps(pa, [t.reward_kinds for t in trajectories], pa.string()),
        "metrics": _maps(pa, [t.metrics for t in trajectories], pa.float64()),
        "messages": _strings(pa, [json.dumps([dict(m) for m in t.messages]) for t in trajectories]),
    }


def _tokens(pa: Any, rows: Sequence[Sequence[Segment]]) -> dict[str, Any]:
    """A list of lists for each per-token field, built from one flat array."""
    flat = [segment for row in rows for segment in row]
    per_row, per_segment = _offsets(pa, map(len, rows)), _offsets(pa, map(len, flat))
    columns = {}
    for name, dtype in _TOKEN_FIELDS.items():
        parts = [np.empty(0, dtype), *map(attrgetter(name), flat)]
        values = pa.array(np.concatenate(parts, dtype=dtype, casting="same_kind"))
        columns[name] = pa.ListArray.from_arrays(per_row, pa.ListArray.from_arrays(per_segment, values))
    return columns


def _turns(pa: Any, rows: Sequence[Sequence[Turn]]) -> Any:
    flat = [turn for row in rows for turn in row]
    columns = {
        "segment": pa.array([turn.segment for turn in flat], pa.int64()),
        "start": pa.array([turn.span.start for turn in flat], pa.int64()),
        "stop": pa.array([turn.span.stop for turn in flat], pa.int64()),
        "finish_reason": _strings(pa, [turn.finish_reason for turn in flat]),
        "state_id": _strings(pa, [turn.state_id for turn in flat]),
        "void": pa.array([turn.void for turn in flat], pa.bool_()),
        "node_id": _strings(pa, [turn.node_id for turn in flat]),
        "value": pa.array([turn.value for turn in flat], pa.float64()),
        "rendered": _strings(pa, [turn.rendered for turn in flat]),
        "rewards": _maps(pa, [turn.rewards for turn in flat], pa.float64()),
        "engine_s": pa.array([turn.engine_s for turn in flat], pa.float64()),
        "queue_s": pa.array([turn.queue_s for turn in flat], pa.float64()),
        "env_s": pa.array([turn.env_s for turn in flat], pa.float64()),
        "tools": _tools(pa, [turn.tools for turn in flat]),
    }
    structs = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    return pa.ListArray.from_arrays(_offsets(pa, map(len, rows)), structs)


def _tools(pa: Any, rows: Sequence[Sequence[ToolUse]]) -> Any:
    flat = [use for row in rows for use in row]
    names, errors = _strings(pa, [use.name for use in flat]), _strings(pa, [use.error for use in flat])
    seconds = pa.array([use.seconds for use in flat], pa.float64())
    structs = pa.StructArray.from_arrays([names, seconds, errors], names=["name", "seconds", "error"])
    return pa.ListArray.from_arrays(_offsets(pa, map(len, rows)), structs)


def _maps(pa: Any, rows: Sequence[Mapping[str, Any]], value_type: Any) -> Any:
    keys = [key for row in rows for key in row]
    values: list[Any] = [value for row in rows for value in row.values()]
    if pa.types.is_floating(value_type):
        values = [float(value) for value in values]
    return pa.MapArray.from_arrays(_offsets(pa, map(len, rows)), _strings(pa, keys), pa.array(values, value_type))


def _strings(pa: Any, values: Sequence[str | None]) -> Any:
    """Text as UTF-8. Half a surrogate pair, which UTF-8 cannot hold, is kept as its escape."""
    return pa.array([None if v is None else v.encode("utf-8", "backslashreplace") for v in values], pa.string())


def _offsets(pa: Any, lengths: Iterable[int]) -> Any:
    return pa.array(np.cumsum([0, *lengths]), pa.int32())


def _further(trajectories: Sequence[Trajectory], columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    taken = {*_READ, *_COUNTS} & set(columns)
    if taken:
        raise ValueError(f"the columns {', '.join(sorted(taken))} are the trajectories' own: choose other names")
    out = {}
    for name, value in columns.items():
        values = list(value) if isinstance(value, list | tuple) else [value] * len(trajectories)
        if len(values) != len(trajectories):
            raise ValueError(f"column {name} has {len(values)} values for {len(trajectories)} trajectories")
        out[name] = values
    return out


def _trajectories(table: Any) -> list[Trajectory]:
    fields = zip(*(_read_tokens(table.column(name).combine_chunks()) for name in _TOKEN_FIELDS), strict=True)
    rows = table.drop_columns(list(_TOKEN_FIELDS)).to_pylist(maps_as_pydicts="strict")
    return [
        Trajectory(
            task_id=row["task_id"],
            group_id=row["group_id"],
            seed=row["seed"],
            segments=tuple(Segment(*arrays) for arrays in zip(*tokens, strict=True)),
            turns=tuple(_read_turn(turn) for turn in row["turns"]),
            outcome=Outcome(row["outcome"]),
            reward=row["reward"],
            reward_kinds=row["reward_kinds"],
            metrics=row["metrics"],
            error=row["error"],
            messages=tuple(json.loads(row["messages"])),
        )
        for row, tokens in zip(rows, fields, strict=True)
    ]


def _read_tokens(column: Any) -> list[list[Any]]:
    """For each row, for each segment, its array: all cut from one flat array."""
    segments = column.flatten()
    values = segments.flatten().to_numpy(zero_copy_only=False)
    ends = np.cumsum(segments.value_lengths().to_numpy())
    arrays = np.split(values, ends[:-1]) if len(ends) else []
    row_ends = np.cumsum(column.value_lengths().to_numpy()).tolist()
    return [arrays[start:end] for start, end in itertools.pairwise([0, *row_ends])]


def _read_turn(turn: Mapping[str, Any]) -> Turn:
    return Turn(
        segment=turn["segment"],
        span=slice(turn["start"], turn["stop"]),
        rewards=turn["rewards"],
        state_id=turn["state_id"],
        finish_reason=turn["finish_reason"],
        void=turn.get("void", False),
        node_id=turn.get("node_id"),
        value=turn.get("value"),
        rendered=turn.get("rendered", "exact"),
        engine_s=turn.get("engine_s", 0.0),
        queue_s=turn.get("queue_s"),
        env_s=turn.get("env_s", 0.0),
        tools=tuple(ToolUse(**use) for use in turn.get("tools", ())),
    )


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("records on disk need pyarrow: pip install 'agentrl[train]'") from error
    return pyarrow, pyarrow.parquet
