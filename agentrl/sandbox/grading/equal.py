"""Whether two encoded values (`inside/values.py`) are the same, by type. No value of a candidate is ever built here:
its numbers are compared, not hashed, and nothing of it is called.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

_SEQUENCES = ("list", "tuple")


@dataclass(frozen=True, slots=True)
class Equality:
    """How a returned value is compared with the expected one.

    A bool is no number, nan equals nothing, -0.0 equals 0.0, infinity equals itself; str is no bytes; a dictionary's
    order does not count; a frozenset counts as a set.

    `tolerance` (0 <= t < 1): where a float is expected, a number that differs by at most t * max(1, |expected|), and
    an int may stand for it. Not inside sets and keys. `numbers`: `typed`: an int is no float; `by_value`: 2 and 2.0
    are the same, everywhere. `tuples`: `as_lists`: the two are the same; `strict`: they are not.
    """

    tolerance: float = 0.0
    numbers: Literal["typed", "by_value"] = "typed"
    tuples: Literal["as_lists", "strict"] = "as_lists"

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance!r}: give a number from 0 to below 1")

    def same(self, got: Any, wanted: Any) -> bool:
        """Both encoded. Raises ValueError if `got` is no encoded value."""
        got_kind, g = _shape(got)
        wanted_kind, w = _shape(wanted)
        if got_kind in _SEQUENCES and wanted_kind in _SEQUENCES:
            alike = got_kind == wanted_kind or self.tuples == "as_lists"
            return alike and len(g) == len(w) and all(map(self.same, g, w))
        if got_kind in ("int", "float") and wanted_kind in ("int", "float"):
            return self._same_number(g, w)
        if got_kind != wanted_kind:
            return False
        if wanted_kind == "set":
            return len(g) == len(w) and sorted(map(self._name, g)) == sorted(map(self._name, w))
        if wanted_kind == "dict":
            return len(g) == len(w) and self._same_pairs(g, w)
        return bool(g == w)

    def _same_pairs(self, got: list[Any], wanted: list[Any]) -> bool:
        ours = {self._name(key): value for key, value in got}
        theirs = {self._name(key): value for key, value in wanted}
        return ours.keys() == theirs.keys() and all(self.same(ours[name], theirs[name]) for name in theirs)

    def _same_number(self, got: float, wanted: float) -> bool:
        """Exactly the ints that were sent, or the floats."""
        alike = type(got) is type(wanted) or self.numbers == "by_value"
        if got == wanted and alike:
            return True
        if type(wanted) is not float or not self.tolerance:
            return False
        try:
            near = float(got)
        except OverflowError:
            return False
        if not math.isfinite(near) or not math.isfinite(wanted):
            return near == wanted
        return abs(near - wanted) <= self.tolerance * max(1.0, abs(wanted))

    def _name(self, said: Any) -> str:
        """A text that is the same for the same values: keys and members are told apart by it."""
        kind, content = _shape(said)
        if kind == "float":
            if self.numbers == "typed" or not math.isfinite(content) or content != int(content):
                return repr(content + 0.0)
            kind, content = "int", int(content)
        if kind == "int":
            return str(content) if abs(content) < 10**300 else hex(content)
        if kind in _SEQUENCES:
            kind = "list" if self.tuples == "as_lists" else kind
            content = [self._name(each) for each in content]
        elif kind == "set":
            content = sorted(self._name(each) for each in content)
        elif kind == "dict":
            content = sorted([self._name(key), self._name(each)] for key, each in content)
        return json.dumps([kind, content])


def _shape(said: Any) -> tuple[str, Any]:
    """(kind, content) of one level of an encoded value. Raises ValueError if it is none."""
    if not isinstance(said, dict):
        return type(said).__name__, said
    if "$" not in said:
        return "dict", list(said.items())
    kind, content = said["$"], said.get("v")
    if kind in ("tuple", "set", "frozenset") and isinstance(content, list):
        return ("tuple" if kind == "tuple" else "set"), content
    if kind == "dict" and isinstance(content, list) and all(isinstance(p, list) and len(p) == 2 for p in content):
        return kind, content
    if kind == "int" and isinstance(content, str):
        return kind, int(content, 16)
    if kind in ("bytes", "complex"):
        return kind, content
    raise ValueError(f"no value is written as {str(kind)[:20]!r}")


def has_nan(said: Any) -> bool:
    """Whether nan is somewhere in this encoded value, so that nothing can equal it."""
    if isinstance(said, dict):
        return any(has_nan(each) for each in said.values())
    if isinstance(said, list):
        return any(has_nan(each) for each in said)
    return isinstance(said, float) and math.isnan(said)
