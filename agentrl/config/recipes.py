"""Recipes as text: TOML and overrides to a `Recipe`, and a `Recipe` back to TOML that reads as the same recipe.

In `[objective]` the slots of a method stand beside `preset`; in the `Recipe` they are `objective.overrides`.
Knows no machine: whether a recipe can run here is asked in `agentrl.config.checks`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from agentrl.config.checks import check_recipe
from agentrl.config.overrides import apply_overrides, parse_override
from agentrl.config.typed import Origin, build, leaves, unknown_key
from agentrl.errors import ConfigError
from agentrl.objective.spec import SLOTS
from agentrl.train.recipe import Recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, set the overrides (`"objective.preset=rloo"`), and check that it can run here.

    Raises:
        UserError: naming the file or the `--set`, the setting's full path, what was got and what was wanted.
    """
    recipe = read_recipe(path, overrides)
    check_recipe(recipe)
    return recipe


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check its keys and types only: nothing is asked of this machine."""
    return recipe_of(read_toml(path), path, overrides)


def recipe_of(table: Mapping[str, Any], path: str | Path, overrides: Sequence[str]) -> Recipe:
    """The recipe that stands in a table, which came from `path`, with the overrides set."""
    parsed = [parse_override(text) for text in overrides]
    tree = apply_overrides(table, parsed)
    origin = Origin(str(path), parsed, [setting for setting in leaves(Recipe) if "overrides" not in setting])
    if isinstance(tree.get("objective"), Mapping):
        tree["objective"] = _slots_apart(tree["objective"], origin)
    return build(Recipe, tree, origin)


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as TOML, every setting included; `read_recipe` reads it back to an equal one."""
    tree = _plain(recipe)
    objective = tree["objective"]
    tree["objective"] = {"preset": objective["preset"], **objective["overrides"]}
    return tomli_w.dumps(tree)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file is not there, is not text, or is not TOML (the line is named).
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give the path of a TOML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file; give the path of a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _slots_apart(table: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    for key in table:
        if key != "preset" and key not in SLOTS:
            raise ConfigError(unknown_key(("objective", key), ["preset", *SLOTS], origin))
    overrides = {key: value for key, value in table.items() if key != "preset"}
    preset = {"preset": table["preset"]} if "preset" in table else {}
    return {**preset, "overrides": overrides}


def _plain(value: Any) -> Any:
    """Turn dataclasses into tables and tuples into lists; a `None` is left out, for TOML has none."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(inner) for name, inner in fields.items() if inner is not None}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value
