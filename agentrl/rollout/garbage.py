"""Python's garbage collector, kept from getting in the way.

What comes in: a block that plays many episodes. What goes out: the same block, in which full collections pass over what
was there before it. Imported modules, models and data sets are hundreds of thousands of objects that stay; looking at
all of them, in which the event loop stands still, would be the longest pauses there are.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG = 20_000  # objects made before the youngest are looked at; Python's own is 700


@contextmanager
def quiet_garbage() -> Iterator[None]:
    """What is there when the block begins is not looked at until it ends. For whoever owns the process."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
