"""Slot `terms`: advantages that are added to the one of credit, baseline and scale.

What comes in: a batch and its rewards. What goes out: numbers at the level they differ on. Knows no loss.
"""

from __future__ import annotations

from collections.abc import Mapping

TERMS: Mapping[str, type] = {}
