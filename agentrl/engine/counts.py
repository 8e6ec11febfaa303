"""Counts what an engine spared itself: prompt tokens whose keys and values it had already.

What comes in: prompts as they are admitted. What goes out: the share that was not computed anew. Imports no backend.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PromptCounts:
    """Since the last `take`."""

    requests: int = 0
    tokens: int = 0
    cached: int = 0

    def add(self, tokens: int, cached: int, *, requests: int = 1) -> None:
        """Prompts of together `tokens` tokens were admitted, `cached` of which need not be computed."""
        self.requests += requests
        self.tokens += tokens
        self.cached += cached

    def take(self) -> dict[str, float]:
        """`engine/requests` and `engine/prefix_hit_rate`; the counts begin anew."""
        out = {"engine/requests": float(self.requests)}
        if self.tokens:
            out["engine/prefix_hit_rate"] = self.cached / self.tokens
        self.requests = self.tokens = self.cached = 0
        return out
