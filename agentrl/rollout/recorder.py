"""Writes one episode's token stream while it is played.

What comes in: rendered tokens and completions, in order. What goes out: segments and turns. Append-only: a token once
written is never changed, so the prompt handed to the engine is a view of the stream itself. Where the history was
rewritten, a new segment begins and the one before stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from agentrl.trajectory import Completion, IntArray, Rendered, Segment, ToolUse, Turn


@dataclass(slots=True)
class Recorder:
    """The stream of the running segment, the segments before it, and the turns of all."""

    turns: list[Turn] = field(default_factory=list)
    rendered: Rendered = "exact"  # how the stream came about, up to its end: what the next turn is marked with
    _done: list[Segment] = field(default_factory=list)
    _ids: IntArray = field(default_factory=lambda: np.empty(256, np.int64))
    _n: int = 0
    _sampled: list[tuple[slice, Completion]] = field(default_factory=list)

    def __len__(self) -> int:
        """Tokens of the running segment."""
        return self._n

    @property
    def token_ids(self) -> IntArray:
        """The running segment so far, [L]. A view; what it shows never changes."""
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

    def extend(self, token_ids: IntArray, rendered: Rendered) -> None:
        """Append what the environment answered; forked, begin a new segment with it as its prompt."""
        if rendered == "forked":
            self._done.append(self._segment())
            self._ids, self._n, self._sampled = np.empty(256, np.int64), 0, []
        self.feed(token_ids)
        self.rendered = rendered

    def act(self, completion: Completion, *, state_id: str | None, engine_s: float = 0.0) -> None:
        """Append sampled tokens as one turn."""
        start = self._n
        self.feed(completion.token_ids)
        span = slice(start, self._n)
        self._sampled.append((span, completion))
        self.turns.append(
            Turn(
                len(self._done),
                span,
                state_id=state_id,
                finish_reason=completion.finish_reason,
                rendered=self.rendered,
                engine_s=engine_s,
                queue_s=completion.queue_s,
            )
        )

    def mark_void(self) -> None:
        """Say of the last turn that its action held neither a tool call nor an answer."""
        self.turns[-1] = replace(self.turns[-1], void=True)

    def answered(self, parts: Mapping[str, float], *, env_s: float, tools: tuple[ToolUse, ...]) -> None:
        """Say of the last turn what it was rewarded with, how long the environment took, and which tools it ran."""
        rewards = {name: float(value) for name, value in parts.items()}
        self.turns[-1] = replace(self.turns[-1], rewards=rewards, env_s=env_s, tools=tools)

    def reward(self, parts: Mapping[str, float]) -> None:
        """Add reward parts to the last turn."""
        last = self.turns[-1]
        merged = dict(last.rewards)
        for name, value in parts.items():
            merged[name] = merged.get(name, 0.0) + float(value)
        self.turns[-1] = replace(last, rewards=merged)

    def segments(self) -> tuple[Segment, ...]:
        """All of them, in order; a running one in which nothing was sampled is left out, unless it is the only one."""
        running = (self._segment(),) if self._sampled or (self._n and not self._done) else ()
        return (*self._done, *running)

    def _segment(self) -> Segment:
        """The running segment, with mask, log-probs and versions of the sampled tokens."""
        mask = np.zeros(self._n, np.bool_)
        logprobs = np.zeros(self._n, np.float32)
        versions = np.full(self._n, -1, np.int64)
        for span, completion in self._sampled:
            mask[span] = True
            logprobs[span] = completion.logprobs
            versions[span] = completion.versions
        return Segment(self._ids[: self._n].copy(), mask, logprobs, versions)
