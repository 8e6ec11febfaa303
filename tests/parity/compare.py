"""What it means that two sides agree.

A comparison that could not fail proves nothing: numbers that hardly vary, or are 0, are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

from tests.parity.ours import Loss
from tests.parity.table import ROWS

TOLERANCE = 1e-5
TESTED: set[str] = set()  # keys of the table whose tests have been imported
_Test = TypeVar("_Test", bound=Callable[..., None])


def shows(*keys: str) -> Callable[[_Test], _Test]:
    """Say which rows of the table a test is the proof of."""
    unknown = set(keys) - {row.key for row in ROWS}
    assert not unknown, f"not in the table: {unknown}"

    def mark(test: _Test) -> _Test:
        TESTED.update(keys)
        return test

    return mark


def same(theirs: np.ndarray | Loss, ours: np.ndarray | Loss, tolerance: float = TOLERANCE) -> None:
    """The numbers agree; of losses, values and gradients."""
    if isinstance(theirs, Loss) or isinstance(ours, Loss):
        assert ours.value == pytest.approx(theirs.value, rel=tolerance, abs=tolerance)
        theirs, ours = theirs.gradient, ours.gradient
        # A mean's gradient shrinks with the number of tokens; what is compared is each token's share.
        largest = np.abs(theirs).max()
        theirs, ours = theirs / largest, ours / largest
    assert np.unique(np.round(theirs, 6)).size > 3, "hardly any two numbers differ: this compares nothing"
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def differ(theirs: np.ndarray | Loss, ours: np.ndarray | Loss, by: float = 1e-3) -> None:
    """The numbers do not agree."""
    if isinstance(theirs, Loss) or isinstance(ours, Loss):
        theirs, ours = (np.append(x.gradient / np.abs(theirs.gradient).max(), x.value) for x in (theirs, ours))
    assert np.abs(theirs - ours).max() > by
