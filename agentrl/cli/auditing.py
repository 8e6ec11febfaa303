"""`agentrl objective audit`: is each estimator's expected gradient the true one? By enumeration, in a minute."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentrl.cli.output import STDOUT, print_table, write_json
from agentrl.config.overrides import apply_overrides, parse_override
from agentrl.errors import ConfigError, MissingDependencyError
from agentrl.objective.audit.report import BRIEF, brief, markdown
from agentrl.objective.loading import load_spec, preset_names
from agentrl.objective.spec import ObjectiveSpec

if TYPE_CHECKING:
    from agentrl.objective.audit.tables import Progress

_TITLES = {
    "presets": "gradient of each estimator against that of E[R]; variance: that of rloo is 1",
    "off_policy": "samples of another policy: rloo with each correction; variance: that of rloo on-policy is 1",
}


def run(arguments: argparse.Namespace) -> int:
    if arguments.markdown and arguments.json == STDOUT:
        raise ConfigError("--markdown and --json - both want stdout: give --json a path")
    sizes = sorted(set(arguments.group_size))
    specs = _specs(arguments.presets, arguments.overrides)
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("an audit needs torch, which is not installed: pip install 'agentrl[train]'")
    from agentrl.objective.audit.tables import as_plain, corrections_table, specs_table

    with _progress() as progress:
        if arguments.off_policy and not arguments.presets:
            tables = as_plain([corrections_table(sizes, progress)])
        else:
            tables = as_plain([specs_table(specs, sizes, progress, off_policy=arguments.off_policy)])
    _show(tables, arguments)
    write_json(arguments.json, tables)
    return 0


def _specs(names: list[str], overrides: list[str]) -> list[tuple[str, ObjectiveSpec]]:
    """The presets with the overrides, each called by what it is."""
    changes = apply_overrides({}, [parse_override(text) for text in overrides])
    suffix = "".join(f" {text}" for text in overrides)
    return [(name + suffix, load_spec(name, changes)) for name in names or preset_names()]


def _show(tables: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.json == STDOUT:
        return
    for name, table in tables.items():
        if arguments.markdown:
            print(f"Settings: {'; '.join(table['settings'])}.\n")
            print(markdown(table))
        else:
            print_table(_TITLES[name], BRIEF, [brief(row) for row in table["rows"]])


@contextmanager
def _progress() -> Iterator[Progress]:
    """A line on stderr that says what is audited; where stderr is no terminal, nothing."""
    if not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console

    with Console(stderr=True).status("enumerating") as status:
        yield lambda name: status.update(f"auditing {name}")
