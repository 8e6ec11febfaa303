"""What grading comes to. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..result import RunResult

CaseStatus = Literal[
    "passed",
    "wrong",
    "error",
    "timeout",
    "memory",
    "output_limit",
    "signal",
    "skipped",
    "infra_error",
    "broken_task",
]
NO_VERDICT = ("infra_error", "broken_task")


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What one case came to. Times in seconds, of the candidate's own processes.

    `wrong`: a value or output came, and is not the one; `error`: an exception, an exit code, or no value that can be
    read; `skipped`: not run after another case failed (`stop_early`); `infra_error`: the sandbox failed or the grade's
    deadline passed; `broken_task`: the task itself cannot be run, such as tests that do not compile. `detail` is for
    people who may know the expected values: never show it to the candidate's author.
    """

    name: str
    status: CaseStatus
    detail: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Grade:
    """One candidate's cases, in the task's order. If any has no verdict, nor has the grade: then it is no score, not 0.

    Made only of what the grader's own process saw.
    """

    cases: tuple[CaseResult, ...]

    @property
    def failed(self) -> bool:
        """There is no verdict: the machinery or the task is at fault. Run it again or leave it out; never score it."""
        return not self.cases or any(case.status in NO_VERDICT for case in self.cases)

    @property
    def passed(self) -> bool | None:
        """Whether all cases passed; None if the grade failed."""
        return None if self.failed else all(case.status == "passed" for case in self.cases)

    @property
    def share(self) -> float | None:
        """Of cases that passed, in [0, 1]; None if the grade failed. With `stop_early` it is a lower bound."""
        return None if self.failed else sum(case.status == "passed" for case in self.cases) / len(self.cases)

    @property
    def why(self) -> str:
        """The first case that did not pass, in a sentence; the cases without a verdict come first. Empty if all did."""
        bad = sorted((c for c in self.cases if c.status != "passed"), key=lambda c: c.status not in NO_VERDICT)
        return f"{bad[0].name}: {bad[0].status}: {bad[0].detail}" if bad else "" if self.cases else "no case was run"


def status_of(run: RunResult) -> CaseStatus:
    """Of a run that is not ok."""
    if run.status == "ok":
        raise ValueError("a run that is ok says nothing about its case")
    return run.status


def shorten(text: str, most: int = 300) -> str:
    """Its end, where Python says what went wrong."""
    text = text.strip()
    return text if len(text) <= most else "..." + text[-most:]


def no_verdict(names: Sequence[str], why: str) -> tuple[CaseResult, ...]:
    return tuple(CaseResult(name, "infra_error", why) for name in names)
