"""`agentrl train`: a recipe to a run. Everything that can be refused is refused before torch is imported."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

import tomli_w

from agentrl.cli import shipped
from agentrl.cli.output import STDOUT, write_json
from agentrl.cli.stopping import interrupts_held, run_stoppable
from agentrl.config import dump_recipe, load_recipe, resume_recipe
from agentrl.errors import ConfigError, MissingDependencyError, UserError
from agentrl.train.display import make_display
from agentrl.train.recipe import Recipe


def run(arguments: argparse.Namespace) -> int:
    recipe = _resolve(arguments)
    if arguments.dry_run:
        print(dump_recipe(recipe), end="")
        return 0
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("training needs torch, which is not installed: pip install 'agentrl[train]'")
    from agentrl.train.build import find_device
    from agentrl.train.disk import write_whole
    from agentrl.train.run import new_folder

    find_device(recipe.launch)
    folder = arguments.resume or new_folder(recipe)
    begun, config = folder.exists(), folder / "config.toml"
    was = config.read_text(encoding="utf-8") if config.exists() else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(config, dump_recipe(recipe))
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written ({error.strerror}): "
            + ("make room there" if arguments.resume else "give another --out")
        ) from error
    try:
        _train(recipe, folder, arguments.json)
    except UserError:
        if not begun and not (folder / "metrics.jsonl").exists():
            shutil.rmtree(folder)  # only the recipe stands in it: the same --out will do once the mistake is mended
        elif was is not None:
            write_whole(config, was)  # the run goes on as it was once the mistake is mended
        raise
    except KeyboardInterrupt:
        print(f"stopped; go on with: agentrl train --resume {folder}", file=sys.stderr)
        return 130
    return 0


def _resolve(arguments: argparse.Namespace) -> Recipe:
    """Find the recipe and set what the arguments set, `--seed` and `--out` over `--set`."""
    overrides = list(arguments.overrides)
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    if arguments.out is not None:
        overrides.append(tomli_w.dumps({"out": arguments.out}).strip())
    read = load_recipe if arguments.resume is None else resume_recipe
    return read(_recipe_path(arguments), overrides)


def _recipe_path(arguments: argparse.Namespace) -> Path:
    if arguments.resume is None:
        if arguments.recipe is None:
            raise ConfigError("train needs a recipe: agentrl train RECIPE (agentrl list recipes shows some)")
        return shipped.find("recipe", arguments.recipe)
    if arguments.recipe is not None or arguments.out is not None:
        raise ConfigError("--resume takes recipe and folder from the run: leave RECIPE and --out away; change by --set")
    saved: Path = arguments.resume / "config.toml"
    if not saved.is_file():
        raise ConfigError(f"--resume {arguments.resume} is no run folder (it has no config.toml)")
    return saved


def _train(recipe: Recipe, folder: Path, json: str | None) -> None:
    with interrupts_held():
        from agentrl.train.loop import train

    with make_display(sys.stderr if json == STDOUT else sys.stdout) as display:
        summary = run_stoppable(train(recipe, folder, display=display))
    write_json(json, summary)
    if recipe.train.steps:
        _draw(folder, json)


def _draw(folder: Path, json: str | None) -> None:
    """Leave the learning curve beside the records, where matplotlib is there to draw it."""
    from agentrl.train.disk import unwritten
    from agentrl.train.plot import plot_run

    if importlib.util.find_spec("matplotlib") is not None and json != STDOUT:
        picture = folder / "learning_curve.png"
        try:
            print(f"learning curve: {plot_run(folder, picture)}")
        except OSError as error:  # the run is done and whole without it
            picture.unlink(missing_ok=True)
            print(unwritten(picture, error), file=sys.stderr)
