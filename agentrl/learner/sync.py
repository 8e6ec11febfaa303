"""The only way back: the learner's weights go to the engine, and a canary proves that they arrived.

What comes in: a learner, an engine, probe prompts. What goes out: an engine that samples from the new version, and
the largest log-prob difference between the two on tokens that the engine has just sampled. Knows no environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from agentrl.engine.base import Engine, Request, Sampling
from agentrl.errors import SyncError
from agentrl.learner.learner import Learner
from agentrl.seeds import derive_seed
from agentrl.trajectory import Completion, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """A model as a `WeightSource`."""

    model: PreTrainedModel

    def named_tensors(self) -> Iterable[tuple[str, Tensor]]:
        return ((name, tensor.detach()) for name, tensor in self.model.state_dict().items())

    def write(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


class Sync:
    """Pushes weights and checks them, on every sampler that the engine has.

    Args:
        probes: prompts [P] each, in the policy's tokens.
        probe_tokens: tokens sampled after each probe.
        tolerance: largest log-prob difference allowed, nats.
    """

    def __init__(
        self,
        weights: ModelWeights,
        learner: Learner,
        engine: Engine,
        probes: Sequence[IntArray],
        *,
        probe_tokens: int,
        tolerance: float,
    ) -> None:
        self._weights, self._learner, self._engine = weights, learner, engine
        self._probes, self._probe_tokens, self._tolerance = probes, probe_tokens, tolerance

    async def push(self, version: int) -> float:
        """Push the weights as `version`; return the canary's largest log-prob difference, nats.

        Raises:
            SyncError: the engine's version or its log-probs are not the learner's.
            EngineFailure: the engine did not take the weights.
        """
        await self._engine.update_weights(self._weights, version)
        if self._engine.version != version:
            raise SyncError(f"version {version} was pushed and the engine says it has version {self._engine.version}")
        samplers = self._engine.samplers  # each has weights of its own, so each is asked at least once
        probes = [self._probes[i % len(self._probes)] for i in range(max(len(self._probes), samplers))]
        completions = await self._ask_all(probes, version, samplers)
        gaps = [self._gap(probe, done, version) for probe, done in zip(probes, completions, strict=True)]
        return max(gaps)

    async def _ask_all(self, probes: Sequence[IntArray], version: int, samplers: int) -> list[Completion]:
        """One completion a probe; where one fails, the others are stopped before it is raised."""
        asked = [asyncio.ensure_future(self._sample(i, p, version, i % samplers)) for i, p in enumerate(probes)]
        try:
            return await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _sample(self, index: int, probe: IntArray, version: int, sampler: int) -> Completion:
        sampling = Sampling(
            max_tokens=self._probe_tokens,
            stop_ids=(),
            temperature=self._learner.temperature,
            seed=derive_seed("canary", index, version),
        )
        episode_id = f"canary/{version}/{index}"
        try:
            return await self._engine.complete(Request(probe, sampling, episode_id, sampler=sampler))
        finally:
            self._engine.release(episode_id)

    def _gap(self, probe: IntArray, completion: Completion, version: int) -> float:
        if set(completion.versions.tolist()) != {version}:
            raise SyncError(
                f"after the push of version {version} the engine sampled with {set(completion.versions.tolist())}"
            )
        stream = np.concatenate([probe, completion.token_ids])
        mask = np.arange(len(stream)) >= len(probe)
        expected = self._learner.logprobs(stream, mask)
        gaps = np.abs(expected - completion.logprobs)
        worst = int(np.argmax(gaps))
        if not gaps[worst] <= self._tolerance:
            raise SyncError(
                f"after the push of version {version} the engine and the learner disagree by {gaps[worst]:.3g} nats "
                f"(token {worst}: engine {completion.logprobs[worst]:.6f}, learner {expected[worst]:.6f}; allowed "
                f"sync.tolerance = {self._tolerance:g}). The engine did not get all weights, or computes in another "
                "precision; models with tied embeddings are known to keep a stale output layer in vLLM's CPU build"
            )
        return float(gaps[worst])
