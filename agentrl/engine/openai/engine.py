"""The engine for OpenAI-compatible chat endpoints: for evaluation only.

What comes in: requests whose context is a `Scene`, for an endpoint reads messages. What goes out: what the endpoint
said, encoded again by the scene's renderer, for the record. These are not the sampled tokens, and nobody knows
the weights: log-probabilities are NaN and versions -1, so nothing can be trained on them. Weights are refused.

A token limit of a turn goes to the endpoint, which counts in its own tokens.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from agentrl.engine.base import Request, WeightSource
from agentrl.engine.http import Client, HttpError
from agentrl.engine.openai.chat import BadChat, Said, chat_messages, read_chat
from agentrl.engine.scripted import Scene
from agentrl.engine.settings import EngineSettings
from agentrl.errors import EngineFailure
from agentrl.trajectory import UNKNOWN_VERSION, Completion, IntArray

_PATH = "/chat/completions"


class OpenAIEngine:
    """Plays `model` at the endpoint of `[engine.openai]`.

    Args:
        model: the model's name at the endpoint.
        settings: `[engine]`; `max_context` bounds the record of an episode.
    """

    def __init__(self, model: str, settings: EngineSettings) -> None:
        self._model, self._settings = model, settings.openai
        self._max_context = settings.max_context
        key = os.environ.get(self._settings.api_key_env, "") if self._settings.api_key_env else ""
        self._client = Client(self._settings.url, api_key=key, proxies=True)
        self._slots = asyncio.Semaphore(self._settings.concurrency)
        self._closed = False
        self._running: dict[str, asyncio.Task[Completion]] = {}
        self._aborted: set[asyncio.Task[Completion]] = set()
        self._requests = self._retries = self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    @property
    def version(self) -> int:
        return UNKNOWN_VERSION

    @property
    def max_context(self) -> int:
        return self._max_context

    @property
    def samplers(self) -> int:
        return 1

    @property
    def broken(self) -> str | None:
        return None

    async def start(self) -> None:
        return None

    async def complete(self, request: Request) -> Completion:
        """Ask the endpoint; a try that fails in passing is repeated `engine.openai.retries` times.

        Raises:
            EngineFailure: the endpoint refused the request or failed every try; every try is told.
        """
        if self._closed:
            raise EngineFailure("the openai engine was closed")
        scene = request.context
        if not isinstance(scene, Scene):
            raise EngineFailure(
                f"an openai engine reads scenes, got context {type(scene).__name__}: use rollout's play"
            )
        call = asyncio.create_task(self._played(request, scene))
        self._running[request.episode_id] = call
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call not in self._aborted or (task is not None and task.cancelling()):
                raise
            if self._closed:
                raise EngineFailure("the openai engine was closed") from None
            return _record(np.empty(0, np.int64), "abort")
        finally:
            call.cancel()
            self._aborted.discard(call)
            if self._running.get(request.episode_id) is call:
                del self._running[request.episode_id]

    async def _played(self, request: Request, scene: Scene) -> Completion:
        async with self._slots:
            said = await self._asked(self._body(request, scene))
        token_ids = scene.renderer.encode_action(said.message)
        if said.finish_reason == "length":
            return _record(token_ids[:-1], "length")  # its turn was not ended
        return _record(token_ids, "stop")

    def _body(self, request: Request, scene: Scene) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": chat_messages(scene.messages),
            "temperature": sampling.temperature,
            self._settings.max_tokens_field: sampling.max_tokens,
        }
        if self._settings.send_seed:
            body["seed"] = sampling.seed % 2**31
        if scene.env.tool_schemas:
            body["tools"] = list(scene.env.tool_schemas)
        return body

    async def _asked(self, body: Mapping[str, Any]) -> Said:
        settings = self._settings
        told: list[str] = []
        wait_s = 0.0
        self._requests += 1
        for attempt in range(settings.retries + 1):
            if attempt:
                self._retries += 1
                await asyncio.sleep(max(wait_s, settings.backoff_s * 2 ** (attempt - 1)))
            try:
                answer = await self._client.ask("POST", _PATH, body, deadline_s=settings.request_deadline_s)
                return self._counted(read_chat(answer))
            except BadChat as error:
                told.append(f"POST {self._client.url}{_PATH}: {error}")
            except HttpError as error:
                if not error.transient:
                    raise EngineFailure(f"the endpoint refused a request: {error}") from error
                told.append(str(error))
                wait_s = error.wait_s
        raise EngineFailure(f"the endpoint failed {len(told)} tries: {'; '.join(dict.fromkeys(told))}")

    def _counted(self, said: Said) -> Said:
        self._prompt_tokens += said.prompt_tokens
        self._cached_tokens += said.cached_tokens
        self._completion_tokens += said.completion_tokens
        return said

    async def abort(self, episode_id: str) -> None:
        """Stop the episode's request; an endpoint does not give back what it had sampled."""
        call = self._running.get(episode_id)
        if call is not None:
            self._aborted.add(call)
            call.cancel()

    def release(self, episode_id: str) -> None:
        """Nothing to forget: nothing is kept."""

    async def update_weights(self, source: WeightSource, version: int) -> None:
        raise EngineFailure(
            "engine.kind = 'openai' serves evaluation only: the endpoint takes no weights, and gives neither the token "
            "ids it sampled nor their log-probabilities. Train with engine.kind = 'hf', 'vllm' or 'vllm-server'"
        )

    def metrics(self) -> Mapping[str, float]:
        """Counters since the start. `prefix_hit_rate`: share of prompt tokens that the endpoint had cached."""
        rate = self._cached_tokens / self._prompt_tokens if self._prompt_tokens else math.nan
        return {
            "prefix_hit_rate": rate,
            "kv_usage": math.nan,
            "requests": float(self._requests),
            "retries": float(self._retries),
            "prompt_tokens": float(self._prompt_tokens),
            "completion_tokens": float(self._completion_tokens),
        }

    async def close(self) -> None:
        """Stop everything. May be called twice; running requests raise `EngineFailure`."""
        self._closed = True
        for call in self._running.values():
            self._aborted.add(call)
            call.cancel()
        await asyncio.sleep(0)
        await self._client.close()


def _record(token_ids: IntArray, finish_reason: Any) -> Completion:
    """What was said, as tokens that were never sampled: nobody knows their probabilities or the weights."""
    n = len(token_ids)
    return Completion(token_ids, np.full(n, np.nan, np.float32), np.full(n, UNKNOWN_VERSION, np.int64), finish_reason)
