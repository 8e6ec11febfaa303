"""TensorBoard's event files, written in place: no thread, so what fails is raised where it can be handled.

What comes in: numbers of a step. What goes out: an event file that TensorBoard reads, flushed after every step. Knows
no run.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

_VERSION = "brain.Event:2"


class Board:
    """A new event file in `folder`.

    Args:
        purge: events of this step and later ones in older files of the folder are hidden.

    Raises:
        OSError: it could not be written.
    """

    def __init__(self, folder: Path, *, purge: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._file = (folder / name).open("wb", buffering=0)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version=_VERSION))
        if purge is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=purge, session_log=start))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write one step's numbers.

        Raises:
            OSError: they could not be written.
        """
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
