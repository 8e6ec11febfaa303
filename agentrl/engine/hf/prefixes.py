"""Key-value prefixes of episodes between their turns.

What comes in: an episode's tokens and their keys and values when a turn ends. What goes out: the same when its next
turn starts with them. The tokens kept are bounded; the episode unused for longest is forgotten first. Knows no rows and
no model.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch

from agentrl.trajectory import IntArray


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens and what the model computed for them."""

    token_ids: IntArray  # [L]
    states: torch.Tensor  # [layers, 2, heads, L, head_dim]


class Prefixes:
    """At most one prefix an episode, `max_tokens` tokens in all."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._kept: OrderedDict[str, Prefix] = OrderedDict()  # unused for longest first
        self.tokens = 0  # kept now

    def keep(self, episode_id: str, prefix: Prefix) -> None:
        """Keep an episode's prefix in place of its last one."""
        self.drop(episode_id)
        self._kept[episode_id] = prefix
        self.tokens += len(prefix.token_ids)
        while self.tokens > self._max_tokens:
            self.drop(next(iter(self._kept)))

    def take(self, episode_id: str, prompt_ids: IntArray) -> torch.Tensor | None:
        """Hand an episode's states over, cut to what `prompt_ids` [P] starts with and to P - 1 tokens at most.

        The last token is never reused: its logits are what is wanted.
        """
        prefix = self._kept.get(episode_id)
        self.drop(episode_id)
        if prefix is None:
            return None
        length = min(_common_length(prefix.token_ids, prompt_ids), len(prompt_ids) - 1)
        return prefix.states[:, :, :, :length] if length else None

    def drop(self, episode_id: str) -> None:
        """Forget an episode. Unknown ids are fine."""
        prefix = self._kept.pop(episode_id, None)
        if prefix is not None:
            self.tokens -= len(prefix.token_ids)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self.tokens = 0


def _common_length(left: IntArray, right: IntArray) -> int:
    """Return how many tokens both start with."""
    shorter = min(len(left), len(right))
    differs = np.flatnonzero(left[:shorter] != right[:shorter])
    return int(differs[0]) if len(differs) else shorter
