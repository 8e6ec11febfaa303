"""Writes one episode's token stream while it is played.

What comes in: rendered tokens and completions, in order. What goes out: segments and turns. Append-only: a token once
written is never changed, so the prompt handed to the engine is a view of the stream itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from agentrl.trajectory import Completion, IntArray, Segment, ToolUse, Turn


@dataclass(slots=True)
class Recorder:
    """The stream of one segment and the turns in it."""

    turns: list[Turn] = field(default_factory=list)
    _ids: IntArray = field(default_factory=lambda: np.empty(256, np.int64))
    _n: int = 0
    _sampled: list[tuple[slice, Completion]] = field(default_factory=list)

    def __len__(self) -> int:
        return self._n

    @property
    def token_ids(self) -> IntArray:
        """The stream so far, [L]. A view; what it shows never changes."""
        view = self._ids[: self._n]
        view.flags.writeable = False
        return view

    def feed(self, token_ids: IntArray) -> None:
        """Append tokens that the environment or the template wrote."""
        end = self._n + len(token_ids)
        if end > len(self._ids):
            grown = np.empty(max(end, 2 * len(self._ids)), np.int64)
            grown[: self._n] = self._ids[: self._n]
            self._ids = grown
        self._ids[self._n : end] = token_ids
        self._n = end

    def act(self, completion: Completion, *, state_id: str | None, engine_s: float = 0.0) -> None:
        """Append sampled tokens as one turn."""
        start = self._n
        self.feed(completion.token_ids)
        span = slice(start, self._n)
        self._sampled.append((span, completion))
        reason = completion.finish_reason
        self.turns.append(Turn(0, span, state_id=state_id, finish_reason=reason, engine_s=engine_s))

    def mark_void(self) -> None:
        """Say of the last turn that its action held neither a tool call nor an answer."""
        self.turns[-1] = replace(self.turns[-1], void=True)

    def answered(self, env_s: float, tools: tuple[ToolUse, ...]) -> None:
        """Say of the last turn how long the environment took to answer, and which tools it ran."""
        self.turns[-1] = replace(self.turns[-1], env_s=env_s, tools=tools)

    def reward(self, parts: Mapping[str, float]) -> None:
        """Add reward parts to the last turn."""
        last = self.turns[-1]
        merged = dict(last.rewards)
        for name, value in parts.items():
            merged[name] = merged.get(name, 0.0) + float(value)
        self.turns[-1] = replace(last, rewards=merged)

    def segment(self) -> Segment:
        """The stream as a segment, with mask, log-probs and versions of the sampled tokens."""
        mask = np.zeros(self._n, np.bool_)
        logprobs = np.zeros(self._n, np.float32)
        versions = np.full(self._n, -1, np.int64)
        for span, completion in self._sampled:
            mask[span] = True
            logprobs[span] = completion.logprobs
            versions[span] = completion.versions
        return Segment(self._ids[: self._n].copy(), mask, logprobs, versions)
