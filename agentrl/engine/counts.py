"""Counts what an engine spared itself: prompt tokens whose keys and values it had already.

What comes in: prompts as they are admitted. What goes out: the share that was not computed anew. Imports no backend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class PromptCounts:
    """Since the start."""

    requests: int = 0
    tokens: int = 0
    cached: int = 0

    def add(self, tokens: int, cached: int, *, requests: int = 1) -> None:
        """Prompts of together `tokens` tokens were admitted, `cached` of which need not be computed."""
        self.requests += requests
        self.tokens += tokens
        self.cached += cached

    def metrics(self) -> dict[str, float]:
        """`requests` and `prefix_hit_rate`, as `Engine.metrics` tells them."""
        rate = self.cached / self.tokens if self.tokens else math.nan
        return {"requests": float(self.requests), "prefix_hit_rate": rate}
