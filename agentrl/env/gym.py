"""The Gymnasium face: any environment as a synchronous `gymnasium.Env` whose observations and actions are text.

What comes in: an environment or its id, and actions as text, tool calls in the Hermes form
(`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`). What goes out: the new messages' text; `info` holds the
messages themselves, the reward's parts and, at reset, the tools' schemas. Importing this module registers the
environments that ship as "agentrl/<id>-v0".
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import gymnasium
import numpy as np
from gymnasium.spaces import Text

from agentrl.env.base import Env, Observation
from agentrl.env.calling import invoke
from agentrl.env.registry import SHIPPED, make
from agentrl.env.text import shorten
from agentrl.errors import EnvFailure
from agentrl.messages import dump
from agentrl.render.parsers import HermesParser

T = TypeVar("T")

MAX_ACTION_CHARS = 8_192
MAX_OBSERVATION_CHARS = 262_144
NAMESPACE = "agentrl"


class AnyText(Text):  # type: ignore[misc]
    """Text of any characters; samples are printable ASCII."""

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, min_length=0, charset="".join(map(chr, range(32, 127))) + "\n")

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length


class GymEnv(gymnasium.Env[str, str]):  # type: ignore[misc]
    """Plays an agentrl environment through Gymnasium's calls.

    Args:
        env: an id, "module:Class", "path/to/file.py:Class", or an environment object.
        render_mode: "ansi" lets `render` return the episode so far as text.
        settings: of the environment, where an id is given.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}

    def __init__(self, env: str | Env, render_mode: str | None = None, **settings: Any) -> None:
        self.env = make(env, **settings) if isinstance(env, str) else env
        self.render_mode = render_mode
        self.observation_space = AnyText(MAX_OBSERVATION_CHARS)
        self.action_space = AnyText(MAX_ACTION_CHARS)
        self._parser = HermesParser()
        self._transcript: list[str] = []
        self._turns = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agentrl-gym")  # where the event loop runs
        self._runner = asyncio.Runner()
        self._closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode; the options go to the environment (`{"task": Task}` chooses the task)."""
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(2**32, dtype=np.uint64)) if seed is None else seed
        observation, info = self._wait(invoke(self.env.reset, seed=episode_seed, options=options))
        self._transcript, self._turns = [], 0
        tools = [dict(schema) for schema in self.env.tool_schemas]
        return self._seen(observation), {**info, "messages": dump(list(observation)), "tools": tools}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Say `action`; its tool calls are run, or it is the final answer."""
        self._turns += 1
        self._transcript.append(f"assistant: {action}")
        observation, reward, terminated, truncated, info = self._wait(invoke(self.env.step, self._parser.parse(action)))
        if self._turns >= self.env.max_turns and not (terminated or truncated):
            due: Mapping[str, float] = self._wait(invoke(self.env.conclude, None))
            info = {**info, "rewards": {**info.get("rewards", {}), **due}}
            reward, truncated = reward + sum(due.values()), True
        text = self._seen(observation)
        return text, float(reward), terminated, truncated, {**info, "messages": dump(list(observation))}

    def render(self) -> str | None:
        return "\n".join(self._transcript) if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Close the environment and the event loop. May be called twice."""
        if self._closed:
            return
        try:
            self._wait(invoke(self.env.close))
        finally:
            self._closed = True
            self._thread.submit(self._runner.close).result()
            self._thread.shutdown()

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on this object's own event loop, in its own thread: so it also works where a loop is running already."""
        if self._closed:
            coroutine.close()
            raise EnvFailure(f"{self.env.name}: the environment is closed; make a new one")
        return self._thread.submit(self._runner.run, coroutine).result()

    def _seen(self, observation: Observation) -> str:
        self._transcript += [f"{message.role}: {message.content}" for message in observation]
        return shorten("\n\n".join(message.content for message in observation), MAX_OBSERVATION_CHARS)


def register_envs() -> None:
    """Make Gymnasium know the environments that ship. May be called twice."""
    for env_id in SHIPPED:
        gym_id = f"{NAMESPACE}/{env_id}-v0"
        if gym_id not in gymnasium.registry:
            gymnasium.register(gym_id, entry_point=f"{__name__}:GymEnv", kwargs={"env": env_id})


register_envs()
