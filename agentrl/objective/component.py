"""How a slot's choice becomes a component: looked up by name, parameters checked.

What comes in: "clip", or {name = "clip", low = 0.2, high = 0.28}. What goes out: the component, a small frozen
dataclass whose fields are the parameters. Knows no formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from agentrl.errors import ConfigError, UnknownNameError, nearest

Choice = str | Mapping[str, Any]


def build(slot: str, choice: Choice, table: Mapping[str, type]) -> Any:
    """Make the component that `choice` names.

    Raises:
        UnknownNameError: the slot has no such component.
        ConfigError: a parameter is unknown, missing, of the wrong type or out of range.
    """
    name, given = split_choice(slot, choice)
    if name not in table:
        raise UnknownNameError(f"objective.{slot}", name, table)
    cls = table[name]
    where = f"objective.{slot} {name!r}"
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    for key in given:
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near!r}? " if near else ""
            raise ConfigError(f"{where} has no parameter {key!r}; {hint}It takes: {', '.join(known) or 'none'}")
    for f in fields(cls):
        if f.default is MISSING and f.name not in given:
            raise ConfigError(
                f"{where} needs the parameter {f.name!r}: give {slot} = {{name = {name!r}, {f.name} = ...}}"
            )
    checked = {key: _typed(f"{where}: {key}", value, hints[key]) for key, value in given.items()}
    return cls(**checked)


def split_choice(slot: str, choice: Choice) -> tuple[str, dict[str, Any]]:
    """Name and parameters of a choice."""
    if isinstance(choice, str):
        return choice, {}
    if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
        raise ConfigError(f'objective.{slot} wants a name or {{name = "...", parameter = ...}}, got {choice!r}')
    return choice["name"], {key: value for key, value in choice.items() if key != "name"}


def describe(component: Any, table: Mapping[str, type]) -> dict[str, Any]:
    """The choice that `build` would make this component from."""
    name = next(name for name, cls in table.items() if cls is type(component))
    return {"name": name, **asdict(component)}


def at_least(owner: str, minimum: float, /, **parameters: float) -> None:
    """Refuse parameters below `minimum`.

    Raises:
        ConfigError: names the parameter, what was got and what is wanted.
    """
    for name, value in parameters.items():
        if not value >= minimum:
            raise ConfigError(f"{owner}: {name} must be at least {minimum:g}, got {value:g}")


def within(owner: str, low: float, high: float, /, **parameters: float) -> None:
    """Refuse parameters outside [low, high].

    Raises:
        ConfigError: names the parameter, what was got and what is wanted.
    """
    for name, value in parameters.items():
        if not low <= value <= high:
            raise ConfigError(f"{owner}: {name} must be in [{low:g}, {high:g}], got {value:g}")


def _typed(where: str, value: Any, wanted: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: wanted a finite number, got {value}")
    try:
        return TypeAdapter(wanted).validate_python(value, strict=True)
    except ValidationError as error:
        raise ConfigError(f"{where}: {error.errors()[0]['msg']}, got {value!r}") from None
