"""One request on its way through the engine.

What comes in: a request, then one sampled token after the other. What goes out: the completion, and what the model
needs to go on. Knows no model and no other row.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Literal

import numpy as np

from agentrl.engine.base import Request
from agentrl.errors import EngineFailure
from agentrl.trajectory import Completion, IntArray

FinishReason = Literal["stop", "length", "abort"]


class Row:
    """A request, its random numbers, and what was sampled for it so far."""

    def __init__(self, request: Request, prompt_ids: IntArray, max_tokens: int) -> None:
        """`max_tokens` is how many may be sampled: the request's wish, or less where the context ends first."""
        sampling = request.sampling
        self.episode_id = request.episode_id
        self.prompt_ids = prompt_ids  # [P]
        self.max_tokens = max_tokens
        self.temperature = sampling.temperature
        self.begun: float | None = None  # when the model began with it, by the clock of `asked`
        self.asked = time.perf_counter()
        self.future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self.finish_reason: FinishReason | None = None
        self.weights_loaded = 0  # how often weights had been loaded when the row was admitted
        self.token_ids: list[int] = []
        self._stop_ids = frozenset(sampling.stop_ids)
        self._uniforms = uniforms(sampling.seed, max_tokens)
        self._logprobs: list[float] = []
        self._versions: list[int] = []

    @property
    def done(self) -> bool:
        """True where no more is to be sampled: finished, or nobody waits for it any longer."""
        return self.finish_reason is not None or self.future.done()

    @property
    def computed(self) -> int:
        """How many tokens the model has seen: all but the one sampled last."""
        return len(self.prompt_ids) + len(self.token_ids) - 1

    @property
    def computed_ids(self) -> IntArray:
        token_ids: IntArray = np.concatenate([self.prompt_ids, np.array(self.token_ids, dtype=np.int64)])
        return token_ids[: self.computed]

    @property
    def next_uniform(self) -> float:
        return self._uniforms[len(self.token_ids)]

    def accept(self, token_id: int, logprob: float, version: int) -> None:
        """Take one sampled token."""
        self.token_ids.append(token_id)
        self._logprobs.append(logprob)
        self._versions.append(version)
        if token_id in self._stop_ids:
            self.finish_reason = "stop"
        elif len(self.token_ids) == self.max_tokens:
            self.finish_reason = "length"

    def resolve(self) -> None:
        """Answer the one who waits, if anybody does."""
        if self.future.done() or self.finish_reason is None:
            return
        completion = Completion(
            token_ids=np.array(self.token_ids, dtype=np.int64),
            logprobs=np.array(self._logprobs, dtype=np.float32),
            versions=np.array(self._versions, dtype=np.int64),
            finish_reason=self.finish_reason,
            queue_s=(time.perf_counter() if self.begun is None else self.begun) - self.asked,
        )
        self.future.set_result(completion)

    def fail(self, error: Exception) -> None:
        """Tell the one who waits, if anybody does, why there is no completion."""
        if not self.future.done():
            self.future.set_exception(error)


def row_for(request: Request, *, vocab_size: int, max_context: int) -> Row:
    """Check a request and make its row.

    Raises:
        EngineFailure: it cannot be sampled.
    """
    sampling = request.sampling
    prompt_ids = np.ascontiguousarray(request.prompt_ids, dtype=np.int64)
    room = max_context - len(prompt_ids)
    if len(prompt_ids) == 0:
        raise EngineFailure("the prompt is empty; an engine needs one token to go on from")
    if prompt_ids.min() < 0 or prompt_ids.max() >= vocab_size:
        got = f"{prompt_ids.min()} to {prompt_ids.max()}"
        raise EngineFailure(f"the prompt has token ids from {got}; the model knows 0 to {vocab_size - 1}")
    if room < 1:
        raise EngineFailure(
            f"the prompt has {len(prompt_ids)} tokens and leaves no room in max_context {max_context}; "
            "raise engine.max_context or shorten the episode"
        )
    if sampling.max_tokens < 1:
        raise EngineFailure(f"max_tokens is {sampling.max_tokens}; ask for one token at least")
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise EngineFailure(f"temperature is {sampling.temperature}; it must be 0 (greedy) or more")
    return Row(request, prompt_ids, min(sampling.max_tokens, room))


def uniforms(seed: int, count: int) -> list[float]:
    """Return `count` numbers in [0, 1): a pure function of `seed`, and shorter lists are prefixes of longer ones."""
    generator = np.random.Generator(np.random.Philox(key=seed % 2**128))
    numbers: list[float] = generator.random(count).tolist()
    return numbers
