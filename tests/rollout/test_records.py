"""Records on disk: what is written is what is read back, bit for bit, or an error names the file."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agentrl.errors import DataError
from agentrl.rollout.records import read_trajectories, write_trajectories
from agentrl.trajectory import Outcome, Segment, Trajectory, Turn

PARTS = st.dictionaries(st.text(max_size=8), st.floats(), max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    n = draw(st.integers(0, 12))
    return Segment(
        draw(hnp.arrays(np.int64, n)),
        draw(hnp.arrays(np.bool_, n)),
        draw(hnp.arrays(np.float32, n)),
        draw(hnp.arrays(np.int64, n)),
    )


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    start, length = draw(st.integers(0, 2**40)), draw(st.integers(0, 50))
    return Turn(
        segment=draw(st.integers(0, 5)),
        span=slice(start, start + length),
        rewards=draw(PARTS),
        state_id=draw(st.none() | st.text(max_size=8)),
        finish_reason=draw(st.sampled_from(["stop", "length", "abort"])),
        void=draw(st.booleans()),
        node_id=draw(st.none() | st.text(max_size=8)),
        value=draw(st.none() | st.floats()),
        rendered=draw(st.sampled_from(["exact", "bridged", "kept", "forked"])),
        engine_s=draw(st.floats(0, 100)),
        queue_s=draw(st.none() | st.floats(0, 100)),
    )


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    outcome = draw(st.sampled_from(Outcome))
    return Trajectory(
        task_id=draw(st.text(max_size=8)),
        group_id=draw(st.text(max_size=8)),
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        segments=tuple(draw(st.lists(segments(), max_size=3))),
        turns=tuple(draw(st.lists(turns(), max_size=3))),
        outcome=outcome,
        reward=None if outcome.failed else draw(st.floats()),
        reward_kinds=draw(st.dictionaries(st.text(max_size=5), st.sampled_from(["outcome", "process"]), max_size=3)),
        metrics=draw(PARTS),
        error=draw(st.none() | st.text(max_size=8)),
        messages=tuple(draw(st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=3))),
    )


def bits(value: Any) -> Any:
    """A form of a trajectory in which equality means the same bits, nan included."""
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    if isinstance(value, Segment | Turn | Trajectory):
        return (type(value).__name__, [(name, bits(getattr(value, name))) for name in value.__slots__])
    return (type(value).__name__, value)


def sample(seed: int = 0, n_tokens: int = 5, **fields: Any) -> Trajectory:
    rng = np.random.default_rng(seed)
    mask = np.arange(n_tokens) >= 3
    segment = Segment(
        rng.integers(0, 300, n_tokens),
        mask,
        np.where(mask, -rng.random(n_tokens), 0).astype(np.float32),
        np.where(mask, 4, -1),
    )
    given: dict[str, Any] = {
        "task_id": f"t{seed}",
        "group_id": "g",
        "seed": seed,
        "segments": (segment,),
        "turns": (Turn(0, slice(3, n_tokens), {"correct": 1.0, "format": 0.25}, state_id="s0"),),
        "outcome": Outcome.TERMINATED,
        "reward": 1.25,
        "reward_kinds": {"correct": "outcome", "format": "process"},
        "metrics": {"tool_calls": 2.0},
        "messages": ({"role": "user", "content": "Zwölf?"}, {"role": "assistant", "content": "12"}),
    }
    return Trajectory(**(given | fields))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(trajectories(), max_size=4))
def test_round_trip_is_exact(tmp_path: Path, wanted: list[Trajectory]) -> None:
    path = write_trajectories(tmp_path / "x.parquet", wanted)
    assert bits(read_trajectories(path)) == bits(wanted)


def test_failed_trajectory_has_a_null_reward_and_a_nan_stays_a_nan(tmp_path: Path) -> None:
    failed = sample(1, outcome=Outcome.FAILED_TOOL, reward=None, error="ToolFailure: disk full")
    path = write_trajectories(tmp_path / "x.parquet", [sample(0), failed, sample(2, reward=math.nan)])
    one, two, three = read_trajectories(path)
    assert (one.reward, two.reward, two.error) == (1.25, None, "ToolFailure: disk full")
    assert three.reward is not None
    assert math.isnan(three.reward)


def test_pandas_opens_it_and_shows_the_fields(tmp_path: Path) -> None:
    failed = sample(1, outcome=Outcome.FAILED_ENGINE, reward=None)
    path = write_trajectories(tmp_path / "x.parquet", [sample(0), failed], step=7, stage=["rl", "eval"])
    frame = pandas.read_parquet(path)
    assert frame["task_id"].tolist() == ["t0", "t1"]
    assert frame["reward"].isna().tolist() == [False, True]
    assert frame["step"].tolist() == [7, 7]
    assert frame["stage"].tolist() == ["rl", "eval"]
    assert frame["n_action_tokens"].tolist() == [2, 2]
    np.testing.assert_array_equal(frame["token_ids"][0][0], sample(0).segments[0].token_ids)
    turn = frame["turns"][0][0]
    assert (turn["start"], turn["stop"], dict(turn["rewards"])) == (3, 5, {"correct": 1.0, "format": 0.25})
    assert pandas.api.types.is_float_dtype(frame["reward"])


def test_a_file_from_before_a_turns_field_reads_as_its_default(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = Turn(0, slice(3, 5), {"correct": 1.25}, "s0", void=True, node_id="n", value=0.5)
    path = write_trajectories(tmp_path / "x.parquet", [sample(0, turns=(turn,))])
    assert read_trajectories(path)[0].turns == (turn,)
    table = pq.read_table(path)
    at = table.schema.get_field_index("turns")
    kept = [field for field in table.schema.field(at).type.value_type if field.name not in ("void", "node_id", "value")]
    older = [[{f.name: turn[f.name] for f in kept} for turn in row] for row in table.column(at).to_pylist()]
    column = pa.array(older, pa.list_(pa.struct(kept)))
    pq.write_table(table.set_column(at, "turns", column), path)
    (back,) = read_trajectories(path)
    assert back.turns == (Turn(0, slice(3, 5), {"correct": 1.25}, "s0"),)


def test_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for step in (2, 0, 1):
        write_trajectories(tmp_path / "trajectories" / f"step-{step:06d}.parquet", [sample(step)], step=step)
    assert [t.task_id for t in read_trajectories(tmp_path / "trajectories")] == ["t0", "t1", "t2"]


def test_text_that_utf8_cannot_hold_is_escaped_not_fatal(tmp_path: Path) -> None:
    path = write_trajectories(tmp_path / "x.parquet", [sample(error="bad \udcff", messages=({"content": "\udcff"},))])
    (back,) = read_trajectories(path)
    assert back.error == r"bad \udcff"
    assert back.messages == ({"content": "\udcff"},)


def test_writing_replaces_the_whole_file_and_leaves_no_draft(tmp_path: Path) -> None:
    path = write_trajectories(tmp_path / "x.parquet", [sample(0), sample(1)])
    write_trajectories(path, [sample(2)])
    assert [t.task_id for t in read_trajectories(path)] == ["t2"]
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_trajectories(tmp_path / "x.parquet", [sample(0)])

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_trajectories(path, [sample(1)])
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]
    assert [t.task_id for t in read_trajectories(path)] == ["t0"]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text"])
def test_broken_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write_trajectories(tmp_path / "broken.parquet", [sample(i, n_tokens=200) for i in range(4)])
    content = path.read_bytes()
    middle = len(content) // 3
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "flipped": content[:middle]
            + bytes(255 - b for b in content[middle : middle + 200])
            + content[middle + 200 :],
            "text": b"hello\n" * 50,
        }[damage]
    )
    with pytest.raises(DataError, match=r"broken\.parquet"):
        read_trajectories(path)


def test_other_parquet_files_are_refused_with_what_is_missing(tmp_path: Path) -> None:
    pandas.DataFrame({"task_id": ["a"], "reward": [1.0]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet is not a file of trajectories: it has no column group_id"):
        read_trajectories(tmp_path / "other.parquet")


@pytest.mark.parametrize("change", [{"outcome": "exploded"}, {"reward": None}, {"messages": "{"}])
def test_impossible_values_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write_trajectories(tmp_path / "x.parquet", [sample(0)])
    table = pq.read_table(path)
    for name, value in change.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array([value], table.schema.field(name).type))
    pq.write_table(table, path)
    with pytest.raises(DataError, match=r"x\.parquet is broken"):
        read_trajectories(path)


def test_missing_file_and_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.parquet"):
        read_trajectories(tmp_path / "nothing.parquet")
    with pytest.raises(DataError, match=r"no \.parquet file"):
        read_trajectories(tmp_path)


@pytest.mark.parametrize(("columns", "told"), [({"reward": 1}, "reward"), ({"step": [1, 2, 3]}, "3 values for 1")])
def test_further_columns_that_cannot_be_are_refused(tmp_path: Path, columns: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        write_trajectories(tmp_path / "x.parquet", [sample(0)], **columns)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from agentrl.errors import MissingDependencyError\n"
        "from agentrl.rollout.records import write_trajectories\n"
        "try: write_trajectories('x.parquet', [])\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "pip install 'agentrl[train]'" in out.stdout
