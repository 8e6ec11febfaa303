"""Plain tables into frozen dataclasses: unknown keys refused by their full path, every value checked against its type.

In: a tree as TOML gives it, and the dataclass it should become. Out: an instance of it. Knows no particular setting:
the dataclasses say which keys there are; pydantic says whether a value fits.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agentrl.config.overrides import Override
from agentrl.errors import ConfigError, nearest

Path = tuple[str, ...]
T = TypeVar("T")

_WORDS = {int: "an integer", float: "a number", str: "a text", bool: "true or false", types.NoneType: "nothing"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the settings came from, so that an error can name it."""

    file: str
    overrides: Sequence[Override] = ()
    known: Sequence[Path] = ()  # every setting there is, for hints

    def of(self, path: Path) -> str:
        """Name what set `path`: the last `--set` that reaches it, or else the file."""
        for override in reversed(self.overrides):
            shared = min(len(path), len(override.path))
            if override.path[:shared] == path[:shared]:
                return str(override)
        return self.file


def build(cls: type[T], table: Any, origin: Origin, path: Path = ()) -> T:
    """Make a `cls` of `table`, its inner dataclasses too.

    Raises:
        ConfigError: for an unknown key, a missing one, or a value of the wrong type.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{origin.of(path)}: {dotted(path)} is {table!r}, wanted a table of settings")
    kinds = field_types(cls)
    for key in table:
        if key not in kinds:
            raise ConfigError(unknown_key((*path, key), list(kinds), origin))
    _refuse_missing(cls, table, origin, path)
    return cls(**{key: _value(kinds[key], value, origin, (*path, key)) for key, value in table.items()})


def unknown_key(path: Path, siblings: Sequence[str], origin: Origin) -> str:
    """Say that `path` is no setting, and which one was probably meant: the same key elsewhere, or a near one here."""
    elsewhere = [known for known in origin.known if known[-1] == path[-1]]
    near = nearest(path[-1], siblings)
    if elsewhere:
        hint = f"did you mean {' or '.join(repr(dotted(known)) for known in elsewhere)}?"
    elif near:
        hint = f"did you mean {dotted((*path[:-1], near))!r}?"
    else:
        hint = f"known {f'in [{dotted(path[:-1])}]' if path[:-1] else 'at the top'}: {', '.join(siblings)}"
    return f"{origin.of(path)}: there is no setting {dotted(path)!r}; {hint}"


def field_types(cls: type) -> dict[str, Any]:
    """Return the type of every field of a dataclass, by name."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def leaves(cls: type, path: Path = ()) -> Iterator[Path]:
    """Give the path of every setting below `cls`."""
    for name, kind in field_types(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from leaves(kind, (*path, name))
        else:
            yield (*path, name)


def dotted(path: Path) -> str:
    return ".".join(path)


def describe(kind: Any) -> str:
    """Say in words what a type takes: `Literal["a", "b"]` is `one of 'a', 'b'`."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(describe(part) for part in arguments if part is not types.NoneType)
    if get_origin(kind) is tuple and arguments[-1] is Ellipsis:
        return f"a list, each of it {describe(arguments[0])}"
    if get_origin(kind) is tuple:
        return f"a list of {len(arguments)}: " + ", ".join(describe(part) for part in arguments)
    if get_origin(kind) is Mapping:
        return "a table"
    return _WORDS.get(kind, str(kind))


def _refuse_missing(cls: type, table: Mapping[str, Any], origin: Origin, path: Path) -> None:
    for field in dataclasses.fields(cls):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in table:
            kind = field_types(cls)[field.name]
            wanted = f"a [{dotted((*path, field.name))}] table" if dataclasses.is_dataclass(kind) else describe(kind)
            raise ConfigError(f"{origin.file}: {dotted((*path, field.name))!r} is missing; add it: {wanted}")


def _value(kind: Any, value: Any, origin: Origin, path: Path) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, origin, path)
    if get_origin(kind) is tuple and isinstance(value, list):
        value = tuple(value)  # TOML has no tuples
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        got = f"{dotted(path)} is {value!r}"
        raise ConfigError(f"{origin.of(path)}: {got}, wanted {describe(kind)}") from error


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))
