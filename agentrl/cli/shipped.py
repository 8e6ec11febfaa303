"""Recipes and suites by name: `calculator` is `scenarios/train/calculator.toml`, here or beside the package.

In: a kind and what the user typed. Out: a path. Reads no file but for the first line, its description.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from agentrl.errors import ConfigError, UnknownNameError

Kind = Literal["recipe", "suite"]
_FOLDERS: dict[Kind, str] = {"recipe": "train", "suite": "suites"}


def find(kind: Kind, name: str) -> Path:
    """Return the path of a recipe or suite, given its path or the name of a shipped one.

    Raises:
        UserError: there is no such file, or none of that name.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = shipped(kind)
    if name in known:
        return known[name]
    if path.name != name or path.suffix == ".toml":
        raise ConfigError(
            f"there is no {kind} file {name!r}; give a path, or a name: {', '.join(known) or 'none found'}"
        )
    raise UnknownNameError(kind, name, known, hint="Or give the path of a TOML file.")


def shipped(kind: Kind) -> dict[str, Path]:
    """Return every recipe or suite in `scenarios/`, by name; one in the current folder hides a shipped one."""
    package = importlib.util.find_spec(f"agentrl.scenarios.{_FOLDERS[kind]}")
    installed = [Path(place) for place in (package.submodule_search_locations or ())] if package is not None else []
    folders = [*installed, Path.cwd() / "scenarios" / _FOLDERS[kind]]
    found = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def description(path: Path) -> str:
    """Return the comment on the first line of a TOML file, or nothing."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""
