"""What commands print: a table for people, JSON for programs.

In: rows, or a plain value. Out: text on stdout, or a file. Knows no command.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError
from agentrl.train.summary import aligned

STDOUT = "-"


def check_target(target: str | None) -> None:
    """Refuse a `--json` that cannot be written, before any work is done for it.

    Raises:
        ConfigError: the folder is not there or not writable, or the path is a folder.
    """
    if target is None or target == STDOUT:
        return
    path = Path(target)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"--json {target} cannot be written; give the path of a file in a folder that is there")


def write_json(target: str | None, value: Any) -> None:
    """Write `value` to a path, or to stdout where `target` is `-`; None: nowhere."""
    if target is None:
        return
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if target == STDOUT:
        sys.stdout.write(text)
        return
    Path(target).write_text(text, encoding="utf-8")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal; where stdout is none, plain columns."""
    if not sys.stdout.isatty():
        print(title, *aligned([tuple(columns), *map(tuple, rows)]), sep="\n")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)
