"""A suite: scenarios that are evaluated together, as a TOML file.

What comes in: a path. What goes out: a checked, frozen `Suite`, or one
error that names the file and says what to change. Knows the environments' names only as text; nothing is run here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agentrl.errors import ConfigError, DataError, nearest

SUITES = Path("scenarios/suites")  # where a project keeps its suites, from its root


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Scenario(_Table):
    """An environment with its settings, tasks and limits. A limit of None is the rollout settings' own."""

    name: str = Field(min_length=1)
    env: str = Field(min_length=1)  # a registered id or "module:Class"
    settings: Mapping[str, Any] = Field(default_factory=dict)  # keyword arguments of the environment
    split: str = "test"
    tasks: Annotated[int, Field(ge=1)] | Literal["all"] = "all"  # how many different tasks, the split's first
    seed: int = 0  # of the sampling; the tasks do not depend on it
    repeats: int = Field(default=1, ge=1)  # attempts at each task
    pass_threshold: float = Field(default=1.0, allow_inf_nan=False)  # succeeded: sum of outcome rewards >= this
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_turns: int | None = Field(default=None, ge=1)
    max_tokens_per_turn: int | None = Field(default=None, ge=1)
    max_tokens_per_episode: int | None = Field(default=None, ge=1)


class Suite(_Table):
    name: str = Field(min_length=1)
    description: str = ""
    scenarios: tuple[Scenario, ...] = Field(alias="scenario", min_length=1, strict=False)  # `[[scenario]]` in the file

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [scenario.name for scenario in self.scenarios]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two scenarios have the name {twice[0]!r}: give each its own")
        return self


def load_suite(path: str | Path) -> Suite:
    """Read a suite from a TOML file.

    Raises:
        DataError: there is no such file; the suites that exist are listed.
        ConfigError: the file is no TOML, or a key is unknown or has an impossible value.
    """
    path = Path(path)
    if not path.is_file():
        raise _missing(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_told(error, content)}") from error


def suite_files(folder: Path = SUITES) -> list[Path]:
    """The suites of a folder, by name."""
    return sorted(folder.glob("*.toml"))


def _missing(path: Path) -> DataError:
    known = suite_files(path.parent) or suite_files()
    if not known:
        return DataError(f"there is no suite {str(path)!r}, nor any in {SUITES}: run this in the project's root")
    return DataError(f"there is no suite {str(path)!r}; there are: {', '.join(map(str, known))}")


def _told(error: ValidationError, content: Mapping[str, Any]) -> str:
    """One fault as one line: where it is, what was got, what would be right; a misspelt key before a missing one."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    location, where = first["loc"], _where(first["loc"], content)
    if first["type"] == "extra_forbidden":
        known = ["name", "description", "scenario"] if len(location) == 1 else list(Scenario.model_fields)
        near = nearest(str(location[-1]), known)
        return f"unknown key {where}; " + (f"did you mean {near!r}?" if near else f"known: {', '.join(known)}")
    if location in {("scenario",), ("scenario", 0)}:
        return "a suite needs one or more [[scenario]] tables"
    if first["type"] == "missing":
        return f"{where} is missing"
    told = " or ".join(dict.fromkeys(_plain(f["msg"]) for f in faults if f["loc"][:3] == location[:3]))
    return f"{where} = {first['input']!r}: {told}" if where else told


def _where(location: Sequence[int | str], content: Mapping[str, Any]) -> str:
    """`tasks of scenario 'easy'` for ("scenario", 0, "tasks")."""
    match list(location):
        case ["scenario", int(index), key, *_]:
            return f"{key!r} of scenario {_label(content['scenario'][index], index)}"
        case ["scenario", int(index)]:
            return f"scenario {index + 1}"
        case [key, *_]:
            return repr(key)
    return ""


def _label(table: Any, index: int) -> str:
    name = table.get("name") if isinstance(table, dict) else None
    return repr(name) if isinstance(name, str) else str(index + 1)


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]
