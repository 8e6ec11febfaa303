"""What a check of an answer says.

What comes in: nothing. What goes out: `Verdict`, `Judgement` and `GoldError`. Knows no rules and no processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agentrl.errors import DataError, VerifierFailure


class Verdict(StrEnum):
    """What was found out about an answer. Broken machinery is none of them: it raises `VerifierFailure`."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"  # no answer was marked, it is over a cap, or it is no mathematics
    TIMEOUT = "timeout"  # the check of this answer used up its time or its memory


class GoldError(DataError, VerifierFailure):
    """The gold answer itself cannot be read: the task is broken, and nothing was found out about the answer.

    Raised in a reward it fails that episode (`failed_verifier`), not the run.
    """

    def __init__(self, gold: str, why: str) -> None:
        super().__init__(f"cannot use the gold answer {clipped(gold)!r}: {why}; mend or drop this task")
        self.gold = gold
        self.why = why

    def __reduce__(self) -> tuple[type[GoldError], tuple[str, str]]:
        return GoldError, (self.gold, self.why)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one answer.

    Attributes:
        verdict: What was found out.
        reason: Why, for people.
        answer: What was taken for the answer, cut out of the text that was given; None if nothing was.
        by: Who decided: "rules" (exact, in this process), "math-verify", or "cache" (math-verify, earlier).
    """

    verdict: Verdict
    reason: str
    answer: str | None
    by: str = "rules"

    @property
    def correct(self) -> bool:
        return self.verdict is Verdict.CORRECT


def clipped(text: str, most: int = 80) -> str:
    """The beginning of a text, for messages."""
    return text if len(text) <= most else text[: most - 3] + "..."
