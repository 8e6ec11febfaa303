"""An engine for tests of orchestration: samples from a seed, keeps what it was fed, fails or hangs on demand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from agentrl.engine.base import Request, WeightSource
from agentrl.trajectory import Completion


@dataclass
class RandomEngine:
    """Says random bytes and, with probability `stop`, ends its turn. Log-probs are random; versions count the calls."""

    seed: int = 0
    stop: float = 0.9
    max_context: int = 100_000
    version: int = 0
    before: Callable[[Request], object] | None = None  # may raise, or return something to await
    calls: dict[str, list[tuple[np.ndarray, Completion]]] = field(default_factory=dict)
    running: int = 0
    released: list[str] = field(default_factory=list)

    async def start(self) -> None:
        return None

    async def complete(self, request: Request) -> Completion:
        self.running += 1
        try:
            if self.before is not None:
                awaited = self.before(request)
                if asyncio.iscoroutine(awaited):
                    await awaited
            rng = random.Random(f"{self.seed}/{request.sampling.seed}")
            length = rng.randrange(1, 12)
            ids = [rng.randrange(32, 127) for _ in range(length)]
            reason = "length"
            if length < request.sampling.max_tokens and rng.random() < self.stop:
                ids.append(request.sampling.stop_ids[0])
                reason = "stop"
            ids = ids[: request.sampling.max_tokens]
            logprobs = np.array([-rng.random() for _ in ids], np.float32)
            versions = np.full(len(ids), sum(map(len, self.calls.values())), np.int64)
            completion = Completion(np.array(ids, np.int64), logprobs, versions, reason)
            self.calls.setdefault(request.episode_id, []).append((request.prompt_ids.copy(), completion))
            return completion
        finally:
            self.running -= 1

    async def abort(self, episode_id: str) -> None:
        return None

    @property
    def samplers(self) -> int:
        return 1

    def release(self, episode_id: str) -> None:
        self.released.append(episode_id)

    async def update_weights(self, source: WeightSource, version: int) -> None:
        self.version = version

    @property
    def broken(self) -> str | None:
        return None

    def metrics(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        return None
