"""What a person sees while something long runs: a live line on a terminal, plain lines elsewhere.

In: stages, steps with their metrics, notes, and a summary at the end. Out: text. Knows nothing of training: the names
of the metrics are the caller's, and only those in `COLUMNS` are shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Protocol, Self

from agentrl.train.summary import RunSummary, summary_lines

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

COLUMNS = {  # metric -> its heading, in the order shown
    "loss": "loss",
    "reward": "reward",
    "success": "success",
    "tool_share": "tool",
    "entropy": "entropy",
    "reference_k3": "kl",
    "critic/explained": "critic",
    "grad_norm": "grad",
    "turns": "turns",
    "tokens": "tokens",
    "failed": "failed",
    "step_s": "s/step",
}
_CELL = 9  # characters of a column in the printed rows
_ROWS_A_STAGE = 20


class Display(Protocol):
    """Where a long piece of work reports. Used as a context manager; leaving it restores the terminal."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps; the one before is over."""

    def advance(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report that `step` steps of the stage are done, and what the last one measured."""

    def note(self, text: str) -> None:
        """Say one thing that stays on the screen."""

    def finish(self, summary: RunSummary) -> None:
        """Show the end of a run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_display(stream: IO[str] | None = None) -> Display:
    """Return the live display where `stream` (default: stdout) is a terminal, and plain lines elsewhere."""
    stream = stream or sys.stdout
    return RichDisplay(stream) if stream.isatty() else PlainDisplay(stream)


def format_metrics(metrics: Mapping[str, float]) -> dict[str, str]:
    """Heading and text of the metrics that are shown: `{"grad_norm": 0.01234}` gives `{"grad": "0.0123"}`."""
    return {heading: _number(metrics[name]) for name, heading in COLUMNS.items() if name in metrics}


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class PlainDisplay:
    """One line a step, written out at once: for pipes, files and logs."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._stage, self._total, self._started_s = "", 0, 0.0

    def stage(self, name: str, total: int) -> None:
        self._stage, self._total, self._started_s = name, total, time.monotonic()
        self._write(f"{name}: {total} steps")

    def advance(self, step: int, metrics: Mapping[str, float]) -> None:
        shown = "".join(f" {heading}={text}" for heading, text in format_metrics(metrics).items())
        self._write(f"{self._stage} {step}/{self._total}{shown} elapsed={time.monotonic() - self._started_s:.1f}s")

    def note(self, text: str) -> None:
        self._write(text)

    def finish(self, summary: RunSummary) -> None:
        for line in summary_lines(summary):
            self._write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class RichDisplay:
    """A live bar with the latest metrics below it; now and then a row of them that stays.

    Args:
        stream: a terminal.
        width: columns of the terminal; None: ask it.
    """

    def __init__(self, stream: IO[str], *, width: int | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(file=stream, width=width, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console)
        self._live: Live | None = None
        self._total, self._printed = 0, ""
        self._latest: dict[str, str] = {}

    def stage(self, name: str, total: int) -> None:
        from rich.live import Live

        self._stop()
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._progress.add_task(name, total=total)
        self._total, self._latest, self._printed = total, {}, ""
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)
        self._live.start()

    def advance(self, step: int, metrics: Mapping[str, float]) -> None:
        self._latest = format_metrics(metrics)
        self._progress.update(self._progress.task_ids[-1], completed=step)
        every = max(1, self._total // _ROWS_A_STAGE)
        if self._latest and (step % every == 0 or step == self._total):
            self._print_row(step)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def finish(self, summary: RunSummary) -> None:
        self._stop()
        for line in summary_lines(summary):
            self._console.print(line, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        latest = "  ".join(f"{heading} {text}" for heading, text in self._latest.items())
        return Group(self._progress.get_renderable(), Text(latest, no_wrap=True, overflow="ellipsis"))

    def _print_row(self, step: int) -> None:
        header = "".join(cell.rjust(_CELL) for cell in ("step", *self._latest))
        row = "".join(cell.rjust(_CELL) for cell in (str(step), *self._latest.values()))
        if header != self._printed:
            self._console.print(header, style="bold", no_wrap=True, overflow="ellipsis")
            self._printed = header
        self._console.print(row, markup=False, no_wrap=True, overflow="ellipsis")
