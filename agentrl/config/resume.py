"""The recipe of a run that is gone on with: what it was begun with, and what may change.

In: a run folder's `config.toml`, in which every setting stands, and overrides. Out: a checked `Recipe`. What the run
ignored was nobody's choice and takes today's default; what cannot change any more is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from agentrl.config.checks import check_recipe
from agentrl.config.engines import ignored_engine_settings
from agentrl.config.recipes import read_recipe, read_toml, recipe_of
from agentrl.errors import ConfigError
from agentrl.learner.settings import TinySettings
from agentrl.objective.loading import load_spec
from agentrl.train.recipe import Recipe, WarmupSettings

_FROZEN: Mapping[str, str] = {
    "seed": "its tasks and draws so far were made from it",
    "out": "its files stand there",
    "policy.path": "its weights and its tokens come from there",
    **{f"policy.tiny.{field.name}": "its policy was made so" for field in fields(TinySettings)},
}
_WARMED: Mapping[str, str] = {f"warmup.{field.name}": "its policy began with that" for field in fields(WarmupSettings)}


def resume_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the saved recipe of a run, set the overrides, and check that the run can go on so.

    Raises:
        UserError: as of `load_recipe`; or a setting is changed that a run keeps.
    """
    saved = read_recipe(path)
    tree = read_toml(path)
    for ignored in _ignored(saved):
        _drop(tree, ignored.split("."))
    recipe = recipe_of(tree, path, overrides)
    begun = any((Path(path).parent / "checkpoints").glob("step-*"))
    _refuse_changes(recipe_of(tree, path, ()), recipe, {**_FROZEN, **_WARMED} if begun else _FROZEN)
    check_recipe(recipe)
    return recipe


def _ignored(recipe: Recipe) -> Iterator[str]:
    """What the run could not have been told to be: a check would have refused it, so it was a default then."""
    yield from (f"engine.{setting}" for setting in ignored_engine_settings(recipe.engine))
    if recipe.policy.path != "tiny":
        yield "policy.tiny"
    if not recipe.train.max_staleness:
        yield "train.stale"
    if not load_spec(recipe.objective.preset, recipe.objective.overrides).needs_values:
        yield "learner.value_lr"


def _refuse_changes(was: Recipe, recipe: Recipe, kept: Mapping[str, str]) -> None:
    for path, reason in kept.items():
        before, now = attrgetter(path)(was), attrgetter(path)(recipe)
        if before != now:
            raise ConfigError(
                f"{path} is {now!r}, but the run that is gone on with was begun with {before!r}, and {reason}: leave "
                "it, or begin another run"
            )


def _drop(tree: dict[str, Any], path: Sequence[str]) -> None:
    """Remove a setting or a table, where it is there."""
    table: Any = tree
    for name in path[:-1]:
        table = table.get(name, {}) if isinstance(table, Mapping) else {}
    if isinstance(table, dict):
        table.pop(path[-1], None)
