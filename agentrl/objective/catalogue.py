"""Methods that are known and not built, each with what it would need.

What comes in: `unbuilt.toml`. What goes out: one `Unbuilt` a method. Loads no torch and no preset.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Unbuilt:
    """A method that is no preset."""

    name: str
    title: str
    side: str  # as in a preset
    source: str  # the paper, or the library that has it
    needs: str  # what is missing here


@cache
def unbuilt_methods() -> tuple[Unbuilt, ...]:
    """All of them, in the order of the file."""
    text = resources.files("agentrl.objective").joinpath("unbuilt.toml").read_text(encoding="utf-8")
    return tuple(Unbuilt(name, **entry) for name, entry in tomllib.loads(text).items())
