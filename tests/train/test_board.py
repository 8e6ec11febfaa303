"""Event files that TensorBoard itself reads."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agentrl.train.board import Board


def test_what_is_written_is_read_back_and_what_is_purged_is_hidden(tmp_path: Path) -> None:
    first = Board(tmp_path / "rl")
    for step in (1, 2, 3):
        first.add(step, {"loss": step / 2, "reward": float("nan")})
    first.close()
    again = Board(tmp_path / "rl", purge=3)
    again.add(3, {"loss": 9.0})
    read = EventAccumulator(str(tmp_path / "rl")).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 9.0)]
    assert len(read.Scalars("reward")) == 2
    again.close()
