"""Writing to a disk that may be full.

What comes in: a block that writes, and what it writes. What goes out: an error that says which file could not be
written, why, how much is free and how to go on. Knows nothing of what is written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentrl.errors import RunStoppedError


@contextmanager
def needed(path: Path, run: Path) -> Iterator[None]:
    """A block that writes `path`, without which the run in folder `run` cannot go on.

    Raises:
        RunStoppedError: it could not be written.
    """
    try:
        yield
    except OSError as error:
        raise RunStoppedError(
            f"{unwritten(path, error)}. Make room, then go on with: agentrl train --resume {run}"
        ) from error


def unwritten(path: Path, error: OSError) -> str:
    """Which file could not be written, why, and how much is free where it was to stand."""
    reason = error.strerror or " ".join(str(error).split())[:200]
    return f"{path} could not be written ({reason}; {_free(path)} free there)"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was before.

    Raises:
        OSError: it could not be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


class Lines:
    """A text file open for appending lines: each is on the disk whole, or not at all, when `add` returns."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def add(self, line: str) -> None:
        """Append a line.

        Raises:
            OSError: it could not be written.
        """
        before, rest = os.fstat(self._handle).st_size, (line + "\n").encode()
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError:
            os.ftruncate(self._handle, before)
            raise

    def close(self) -> None:
        os.close(self._handle)


def _free(path: Path) -> str:
    """Free room for the user's files on the disk of the nearest folder that is there."""
    folder = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path("/"))
    return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB"
