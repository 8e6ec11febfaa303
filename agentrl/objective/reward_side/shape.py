"""Slot `shape`: steps from the environment's reward parts to the rewards that are credited, in order.

What comes in: a batch and its reward parts, [K, P]. What goes out: parts again; their sum is each turn's reward. No
step at all: the environment's rewards as they are. Knows no baseline and no token.
"""

from __future__ import annotations

from collections.abc import Mapping

SHAPES: Mapping[str, type] = {}
