"""An engine without a model: plays a script, so that orchestration, environments and evaluations run anywhere.

What comes in: requests whose context is a `Scene`. What goes out: the scripted message as token ids with log-
probability 0 (a script is certain of what it says). Nothing is learnt from it; weights are refused.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentrl.engine.base import Request, WeightSource
from agentrl.env.base import Env
from agentrl.env.task import Task
from agentrl.errors import EngineFailure, EnvDefinitionError, UnknownNameError
from agentrl.messages import AssistantMessage, Message
from agentrl.render.renderer import Renderer
from agentrl.trajectory import Completion


@dataclass(frozen=True, slots=True)
class Scene:
    """What a script sees when it is its turn."""

    env: Env
    task: Task
    messages: Sequence[Message]
    rng: random.Random  # the episode's own
    renderer: Renderer


Script = Callable[[Scene], Awaitable[AssistantMessage | str]]


async def oracle(scene: Scene) -> AssistantMessage:
    """The environment's best player."""
    return await _said(scene, scene.env.oracle, scene.task, scene.messages)


async def demo(scene: Scene) -> AssistantMessage:
    """The environment's demonstrator for imitation."""
    return await _said(scene, scene.env.demonstrate, scene.task, scene.messages, scene.rng)


async def null(scene: Scene) -> str:
    """Says nothing."""
    return ""


async def noise(scene: Scene) -> str:
    """Says up to 40 random printable characters."""
    return "".join(chr(scene.rng.randrange(32, 127)) for _ in range(scene.rng.randrange(1, 41)))


SCRIPTS: Mapping[str, Script] = {"oracle": oracle, "gold": oracle, "demo": demo, "null": null, "noise": noise}


def canned(lines: Sequence[AssistantMessage | str]) -> Script:
    """A script that says `lines[k]` in turn k, and the last line for ever after."""

    async def play(scene: Scene) -> AssistantMessage | str:
        turn = sum(1 for message in scene.messages if isinstance(message, AssistantMessage))
        return lines[min(turn, len(lines) - 1)]

    return play


class ScriptedEngine:
    """Plays `script`, an entry of `SCRIPTS` or any async function from a `Scene` to what is said.

    Args:
        script: a name or a function.
        max_context: most tokens of one request, as for any engine.
        latency_s: waited before each answer, to stand for a slow model.

    Raises:
        UnknownNameError: there is no script of that name.
    """

    def __init__(self, script: str | Script, *, max_context: int = 1_000_000, latency_s: float = 0.0) -> None:
        if isinstance(script, str):
            if script not in SCRIPTS:
                raise UnknownNameError("script", script, SCRIPTS)
            script = SCRIPTS[script]
        self._script = script
        self._max_context = max_context
        self._latency_s = latency_s
        self._waits: dict[str, asyncio.Future[bool]] = {}  # false: the latency is over; true: aborted

    @property
    def version(self) -> int:
        return 0

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
        scene = request.context
        if not isinstance(scene, Scene):
            raise EngineFailure(
                f"a scripted engine plays scenes, got context {type(scene).__name__}: use rollout's play"
            )
        said = await self._script(scene)
        message = AssistantMessage(content=said) if isinstance(said, str) else said
        token_ids = scene.renderer.encode_action(message)
        if self._latency_s and await self._aborted_while_waiting(request.episode_id):
            return _completion(np.empty(0, np.int64), "abort")
        if len(token_ids) > request.sampling.max_tokens:
            return _completion(token_ids[: request.sampling.max_tokens], "length")
        return _completion(token_ids, "stop")

    async def abort(self, episode_id: str) -> None:
        if episode_id in self._waits:
            _settle(self._waits[episode_id], True)

    def release(self, episode_id: str) -> None:
        self._waits.pop(episode_id, None)

    async def update_weights(self, source: WeightSource, version: int) -> None:
        raise EngineFailure("a scripted engine has no weights to update: train with engine.kind = 'hf' or 'vllm'")

    def metrics(self) -> Mapping[str, float]:
        return {}

    async def close(self) -> None:
        for wait in self._waits.values():
            _settle(wait, True)

    async def _aborted_while_waiting(self, episode_id: str) -> bool:
        loop = asyncio.get_running_loop()
        wait: asyncio.Future[bool] = loop.create_future()
        self._waits[episode_id] = wait
        timer = loop.call_later(self._latency_s, _settle, wait, False)
        try:
            return await wait
        finally:
            timer.cancel()


def _settle(wait: asyncio.Future[bool], aborted: bool) -> None:
    if not wait.done():
        wait.set_result(aborted)


async def _said(scene: Scene, method: Callable[..., Any], *args: Any) -> AssistantMessage:
    said = method(*args)
    if inspect.isawaitable(said):
        said = await said
    if isinstance(said, str):
        return AssistantMessage(content=said)
    if not isinstance(said, AssistantMessage):
        raise EnvDefinitionError(
            f"{type(scene.env).__name__}.{method.__name__} returned {type(said).__name__}: return an AssistantMessage"
        )
    return said


def _completion(token_ids: Any, finish_reason: Any) -> Completion:
    n = len(token_ids)
    return Completion(token_ids, np.zeros(n, np.float32), np.zeros(n, np.int64), finish_reason)
