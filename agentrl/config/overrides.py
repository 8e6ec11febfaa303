"""Dotted overrides: `objective.preset=rloo` on the command line sets one leaf of a tree of plain tables.

In: the text after `--set`. Out: a path and a TOML value, or the tree with that value in it. Knows no recipe: which
keys exist and which types they have is checked afterwards, by `agentrl.config.typed`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentrl.errors import ConfigError

_EXAMPLE = "write it like --set objective.preset=rloo"
_TOML_OPENINGS = ("[", "{", '"', "'")  # a value that starts so is meant as TOML, and is never taken as plain text


@dataclass(frozen=True, slots=True)
class Override:
    """One `--set PATH=VALUE`, read."""

    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        return f"--set {'.'.join(self.path)}"


def parse_override(text: str) -> Override:
    """Read `a.b=VALUE`; VALUE is TOML (`3`, `true`, `[1, 2]`, `{name = "clip"}`), or else a plain text.

    Raises:
        ConfigError: without `=`, with an empty key, or with a list, table or quoted text that is not closed.
    """
    dotted, equals, value = text.partition("=")
    path = tuple(part.strip() for part in dotted.split("."))
    if not equals:
        raise ConfigError(f"--set {text!r} has no '='; {_EXAMPLE}")
    if not all(path):
        raise ConfigError(f"--set {text!r} has an empty key; {_EXAMPLE}")
    return Override(path, _parse_value(value.strip(), text))


def apply_overrides(tree: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """Return a copy of `tree` with every override set, later ones over earlier ones."""
    result = dict(tree)
    for override in overrides:
        result = _with_value(result, override, depth=0)
    return result


def _parse_value(value: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError as error:
        if value.startswith(_TOML_OPENINGS):
            hint = """texts inside need quotes, as in --set 'objective.gate={name = "clip"}'"""
            raise ConfigError(f"--set {text!r} does not read as TOML ({error}); {hint}") from error
        return value
    return parsed["value"] if len(parsed) == 1 else value


def _with_value(table: Mapping[str, Any], override: Override, depth: int) -> dict[str, Any]:
    key, last = override.path[depth], depth == len(override.path) - 1
    if last:
        return {**table, key: override.value}
    inner = table.get(key, {})
    if not isinstance(inner, Mapping):
        where = ".".join(override.path[: depth + 1])
        raise ConfigError(f"{override}: {where} is {inner!r}, not a table, so nothing can be set inside it")
    return {**table, key: _with_value(inner, override, depth + 1)}
