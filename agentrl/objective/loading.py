"""Presets and overrides to specs: what a recipe says, read and checked.

What comes in: a preset's name or file, and overrides. What goes out: a checked `ObjectiveSpec`. Loads no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError, UnknownNameError, nearest
from agentrl.objective.component import build, split_choice
from agentrl.objective.spec import ABOUT, DEFAULTS, LIST_SLOTS, SIDES, SLOTS, ObjectiveSpec


def preset_names() -> list[str]:
    """Names of the presets that ship."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml"))


def load_spec(preset: str, overrides: Mapping[str, Any] | None = None) -> ObjectiveSpec:
    """The preset with some slots changed. `preset` is a shipped one's name, or the path of a file "*.toml".

    An override is a component's name, a table with a name (both replace the slot's component), or a table without a
    name (changes parameters of the component that stands there). Slots of any number of components also take lists,
    and "none" for an empty one.

    Raises:
        UnknownNameError: no such preset, slot or component.
        ConfigError: a parameter is wrong, or the components do not go together.
    """
    table = dict(_read(preset))
    for slot, override in (overrides or {}).items():
        if slot not in SLOTS:
            raise UnknownNameError("objective slot", slot, SLOTS)
        table[slot] = _override(slot, table.get(slot, DEFAULTS.get(slot)), override)
    return spec_from_table(table)


def spec_from_table(table: Mapping[str, Any]) -> ObjectiveSpec:
    """Make a spec from what a preset's file says.

    Raises:
        ConfigError: a key is missing or unknown, a component cannot be made, or the components do not go together.
    """
    keys = (*ABOUT, *SLOTS)
    for key in table:
        if key not in keys:
            near = nearest(key, keys)
            hint = f"did you mean {near!r}? " if near else ""
            raise ConfigError(f"a preset has no key {key!r}; {hint}Keys: {', '.join(keys)}")
    table = {**DEFAULTS, **table}
    missing = [key for key in keys if key not in table]
    if missing:
        raise ConfigError(f"preset {table.get('name', '?')!r} lacks {', '.join(missing)}")
    for key in ABOUT:
        wanted = bool if key == "in_frame" else str
        if not isinstance(table[key], wanted):
            raise ConfigError(
                f"preset {table['name']!r}: {key} must be {'true or false' if wanted is bool else 'a text'}, got "
                f"{table[key]!r}"
            )
    if table["side"] not in SIDES:
        raise ConfigError(f"preset {table['name']!r}: side must be one of {', '.join(SIDES)}, got {table['side']!r}")
    made: dict[str, Any] = {key: table[key] for key in ABOUT}
    for slot, components in SLOTS.items():
        if slot in LIST_SLOTS:
            made[slot] = tuple(build(slot, choice, components) for choice in _as_list(table[slot]))
        else:
            made[slot] = build(slot, table[slot], components)
    return ObjectiveSpec(**made)


def _override(slot: str, current: Any, override: Any) -> Any:
    if not isinstance(override, Mapping) or "name" in override:
        return override
    standing = _as_list(current) if slot in LIST_SLOTS else [current]
    if len(standing) != 1:
        raise ConfigError(
            f"objective.{slot} holds {len(standing)} components, so {dict(override)} does not say which one it "
            "changes; give the name too"
        )
    name, parameters = split_choice(slot, standing[0])
    return {"name": name, **parameters, **override}


def _as_list(value: Any) -> Sequence[Any]:
    if value == "none":
        return []
    return value if isinstance(value, list | tuple) else [value]


def _read(preset: str) -> Mapping[str, Any]:
    if preset.endswith(".toml"):
        return _read_file(Path(preset).expanduser())
    return _read_shipped(preset)


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the objective preset {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"the objective preset {str(path)!r} is not TOML: {error}") from None


@cache
def _read_shipped(preset: str) -> Mapping[str, Any]:
    if preset not in preset_names():
        raise UnknownNameError("objective preset", preset, preset_names())
    return tomllib.loads((_folder() / f"{preset}.toml").read_text(encoding="utf-8"))


def _folder() -> Any:
    return resources.files("agentrl.objective.presets")
