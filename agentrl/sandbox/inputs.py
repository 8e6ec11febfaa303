"""What a caller hands in, checked and as bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping


def check_name(name: str) -> str:
    """A relative path of plain parts. Raises ValueError else."""
    os.fsencode(name)  # a UnicodeEncodeError is a ValueError
    parts = name.split("/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"{name!r} is no name of a file below the working folder: give a relative path without . and .."
        )
    return name


def as_bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)


def as_files(files: Mapping[str, str | bytes] | None) -> dict[str, bytes]:
    return {check_name(name): as_bytes(content) for name, content in (files or {}).items()}
