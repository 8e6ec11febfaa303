"""Whether a program printed what it should. Pure functions on text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

_SPACE = " \t\r\n\f\v"  # and no other: what Unicode calls space is part of a token
_REAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Output:
    """How printed text is compared with the expected one: all of it, neither a part nor a beginning.

    `exact`: character by character. `lines`: without spaces at the ends of lines and empty lines at the end of the
    text; a carriage return before a line's end counts as space. `tokens`: what stands between spaces and line ends;
    with `tolerance` t (0 <= t < 1), where a token is expected that is written with a point or an exponent, any decimal
    number that differs by at most t * max(1, |expected|); whole numbers stay exact.
    """

    rule: Literal["exact", "lines", "tokens"] = "lines"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in ("exact", "lines", "tokens"):
            raise ValueError(f"rule is {self.rule!r}: give exact, lines or tokens")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance!r}: give a number from 0 to below 1")
        if self.tolerance and self.rule != "tokens":
            raise ValueError(f"a tolerance goes with rule 'tokens', not with {self.rule!r}")

    def difference(self, got: str, wanted: str) -> str:
        """The first difference, in a sentence; empty if there is none."""
        ours, theirs = self._parts(got), self._parts(wanted)
        for number, (g, w) in enumerate(zip(ours, theirs, strict=False), 1):
            if g != w and not (self.tolerance and _near(g, w, self.tolerance)):
                return f"{self._noun} {number} is {g[:60]!r}, not {w[:60]!r}"
        if len(ours) != len(theirs):
            return f"{len(ours)} {self._noun}s, not {len(theirs)}"
        return ""

    @property
    def _noun(self) -> str:
        return {"exact": "text", "lines": "line", "tokens": "token"}[self.rule]

    def _parts(self, text: str) -> list[str]:
        if self.rule == "exact":
            return [text]
        if self.rule == "tokens":
            return [token for token in re.split(f"[{_SPACE}]+", text) if token]
        lines = [line.rstrip(_SPACE) for line in text.split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def _near(got: str, wanted: str, tolerance: float) -> bool:
    if len(got) > 400 or not (_REAL.fullmatch(got) and _REAL.fullmatch(wanted)) or _WHOLE.fullmatch(wanted):
        return False
    near, far = float(got), float(wanted)
    if not math.isfinite(near) or not math.isfinite(far):
        return False
    return abs(near - far) <= tolerance * max(1.0, abs(far))
