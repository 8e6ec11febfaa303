"""The push and its canary, against the real embedded engine. Each way to break the sync is seen and named."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from agentrl.engine.base import Request, Sampling, WeightSource
from agentrl.engine.hf import HFEngine
from agentrl.engine.settings import EngineSettings
from agentrl.errors import EngineFailure, SyncError
from agentrl.learner.learner import Learner
from agentrl.learner.settings import OptimizerSettings
from agentrl.learner.sync import ModelWeights, Sync
from agentrl.objective.loading import load_spec
from agentrl.objective.objective import Objective
from agentrl.trajectory import Completion
from tests.learner.conftest import make_model

PROBES = [np.array([3, 5, 7]), np.array([1, 2, 3, 4, 5, 6, 7, 8])]


class Session:
    """A learner whose weights have moved since the engine was made."""

    def __init__(self) -> None:
        self.model = make_model()
        self.engine = HFEngine(copy.deepcopy(self.model), EngineSettings(max_context=64))
        self.learner = Learner(
            self.model, Objective(load_spec("grpo")), OptimizerSettings(), total_updates=1, temperature=0.8
        )
        with torch.no_grad():
            for p in self.model.parameters():
                p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))

    def sync(self, weights: WeightSource | None = None, engine: object | None = None) -> Sync:
        return Sync(
            weights or ModelWeights(self.model),  # type: ignore[arg-type]
            self.learner,
            engine or self.engine,  # type: ignore[arg-type]
            PROBES,
            probe_tokens=8,
            tolerance=1e-4,
        )


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    session = Session()
    await session.engine.start()
    yield session
    await session.engine.close()


async def test_after_a_push_the_two_agree(session: Session) -> None:
    assert await session.sync().push(3) < 1e-5
    assert session.engine.version == 3


@dataclass(frozen=True)
class Partly(ModelWeights):
    """Brings the engine's old output layer along instead of the learner's."""

    old: Qwen3ForCausalLM

    def named_tensors(self) -> Iterable[tuple[str, torch.Tensor]]:
        stale = self.old.state_dict()
        return ((n, stale[n] if n == "lm_head.weight" else t) for n, t in super().named_tensors())


async def test_a_stale_output_layer_is_seen(session: Session) -> None:
    with pytest.raises(SyncError, match=r"after the push of version 1 the engine and the learner disagree by .* nats"):
        await session.sync(Partly(session.model, make_model())).push(1)


class Deaf:
    """An engine that says it took the weights, and did not."""

    def __init__(self, engine: HFEngine, *, raise_version: bool) -> None:
        self._engine, self._raise, self.version = engine, raise_version, engine.version

    async def update_weights(self, source: WeightSource, version: int) -> None:
        if self._raise:
            self.version = version

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)


async def test_an_engine_that_ignores_the_push_is_seen(session: Session) -> None:
    with pytest.raises(SyncError, match="says it has version 0"):
        await session.sync(engine=Deaf(session.engine, raise_version=False)).push(1)
    with pytest.raises(SyncError, match=r"sampled with \{0\}"):
        await session.sync(engine=Deaf(session.engine, raise_version=True)).push(1)


async def test_a_learner_that_scores_at_another_temperature_is_seen(session: Session) -> None:
    sync = session.sync()
    session.learner.temperature = 1.0
    session.engine.complete = _at(session.engine.complete, 0.5)  # type: ignore[method-assign]
    with pytest.raises(SyncError, match="disagree"):
        await sync.push(1)


async def test_where_one_probe_fails_the_others_are_stopped(session: Session) -> None:
    asked, stopped = asyncio.Event(), []

    async def complete(request: Request) -> Completion:
        if request.episode_id.endswith("/0"):
            await asked.wait()  # the other one is under way
            raise EngineFailure("the server is gone")
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(request.episode_id)
        raise AssertionError("nobody sets that event")

    session.engine.complete = complete  # type: ignore[method-assign]
    with pytest.raises(EngineFailure, match="the server is gone"):
        await session.sync().push(1)
    assert stopped == ["canary/1/1"]


def _at(complete: object, temperature: float) -> object:
    async def hotter(request: Request) -> object:
        s = request.sampling
        sampling = Sampling(s.max_tokens, s.stop_ids, temperature, s.seed)
        return await complete(Request(request.prompt_ids, sampling, request.episode_id))  # type: ignore[operator]

    return hotter
