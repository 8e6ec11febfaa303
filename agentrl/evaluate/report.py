"""Shows a suite's result to a person.

What comes in: a result and a rich console. What goes out: a table with a row a scenario, then what failed and what is
wrong in the data, in at most 100 columns; without colour or lines where the console is no terminal. A narrower terminal
gets fewer columns.
"""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentrl.evaluate.result import ScenarioResult, SuiteResult

SHOWN_FAULTS = 3
_WIDTH = 100


def print_report(result: SuiteResult, console: Console, *, policy: str = "") -> None:
    """Print the result of a suite; `policy` names who played."""
    plain = not console.is_terminal
    if plain:  # a pipe or a file has no width of its own
        console = Console(file=console.file, width=_WIDTH, color_system=None, force_terminal=False)
    console.print(Text(f"Suite {result.name}" + (f", policy {policy}" if policy else ""), style="bold"))
    console.print(_table(result, plain=plain, narrow=console.width < _WIDTH), width=min(console.width, _WIDTH))
    console.print(Text("success: with its 95 % interval; n: episodes it rests on, failed ones left out", style="dim"))
    if result.missing:
        console.print(Text(f"stopped before its end; without: {', '.join(result.missing)}", style="bold"))
    for scenario in result.scenarios:
        _print_failures(scenario, console)
        _print_faults(scenario, console)


def _table(result: SuiteResult, *, plain: bool, narrow: bool) -> Table:
    ks = sorted({k for scenario in result.scenarios for k in scenario.result.pass_at})
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("scenario", overflow="fold", min_width=8)
    table.add_column("success", no_wrap=True)
    for k in ks:
        table.add_column(f"pass@{k}", justify="right", no_wrap=True)
    for name in ("n", "failed", "truncated", "reward", *(() if narrow else ("turns", "tokens"))):
        table.add_column(name, justify="right", no_wrap=True)
    for scenario in result.scenarios:
        table.add_row(*_row(scenario, ks)[: len(table.columns)])
    if len(result.scenarios) > 1:
        table.add_section()
        counts = _counts(result.success.n, result.failed, result.truncated)
        table.add_row("all", str(result.success), *("" for _ in ks), *counts, _number(result.reward.mean, 3))
    return table


def _row(scenario: ScenarioResult, ks: list[int]) -> list[Text | str]:
    found = scenario.result
    return [
        Text(scenario.name),
        str(found.success),
        *(_number(found.pass_at[k].mean, 3) if k in found.pass_at else "" for k in ks),
        *_counts(found.success.n, found.failed, found.truncated),
        _number(found.reward.mean, 3),
        _number(found.turns, 1),
        _number(found.tokens, 0),
    ]


def _counts(n: int, failed: int, truncated: int) -> list[Text | str]:
    return [str(n), Text(str(failed), style="bold red" if failed else ""), str(truncated)]


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _print_failures(scenario: ScenarioResult, console: Console) -> None:
    for outcome, error in scenario.result.errors.items():
        times, retried = scenario.result.outcomes.get(outcome, 0), scenario.result.retried.get(outcome, 0)
        again = f" and {retried} played anew" if retried else ""
        style = "red" if times else "yellow"
        _print(f"{scenario.name}: {outcome} x{times}{again}, the first: {error}", console, style=style)


def _print_faults(scenario: ScenarioResult, console: Console) -> None:
    faults = scenario.data_faults
    if not faults:
        return
    count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
    _print(f"{scenario.name}: {count} in the data itself (split {scenario.split!r})", console)
    for fault in faults[:SHOWN_FAULTS]:
        _print(f"  {fault}", console)
    if len(faults) > SHOWN_FAULTS:
        _print(f"  ... and {len(faults) - SHOWN_FAULTS} more: --json PATH writes every one", console)


def _print(line: str, console: Console, *, style: str = "") -> None:
    console.print(Text(line, style=style), width=min(console.width, _WIDTH))
