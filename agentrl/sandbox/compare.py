"""Whether a value that came back is the one that was expected. By type, and in the caller's process."""

from __future__ import annotations

import math
from typing import Any


def same_value(got: Any, wanted: Any, *, tolerance: float = 0.0) -> bool:
    """Equal in value and type. A bool is no int, an int no float, nan equals nothing; a tuple counts as a list.

    `tolerance` above zero: numbers may differ by so much, absolutely or relative to `wanted`, and an int may stand
    for a float.
    """
    if isinstance(wanted, list | tuple):
        return (
            isinstance(got, list | tuple)
            and len(got) == len(wanted)
            and all(same_value(g, w, tolerance=tolerance) for g, w in zip(got, wanted, strict=True))
        )
    if isinstance(wanted, dict):
        return (
            isinstance(got, dict)
            and got.keys() == wanted.keys()
            and all(same_value(got[key], wanted[key], tolerance=tolerance) for key in wanted)
        )
    if tolerance > 0 and type(got) in (int, float) and type(wanted) in (int, float):
        return _near(got, wanted, tolerance)
    return type(got) is type(wanted) and got == wanted


def _near(got: float, wanted: float, tolerance: float) -> bool:
    try:
        return got == wanted or math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer that no float can hold
        return False
