"""What commands print: a table for people, JSON for programs.

In: rows, or a plain value. Out: text on stdout, or a file. Knows no command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError
from agentrl.train.summary import aligned

STDOUT = "-"


def write_json(target: str | None, value: Any) -> None:
    """Write `value` to a path, or to stdout where `target` is `-`; None: nowhere."""
    if target is None:
        return
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if target == STDOUT:
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {target} cannot be written ({error.strerror}); give a path in a folder that is there") from error


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
