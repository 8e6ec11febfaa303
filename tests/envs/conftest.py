"""Play an episode of an env directly, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from agentrl.env import Env, Task
from agentrl.messages import AssistantMessage, Message

Policy = Callable[[Task, Sequence[Message]], AssistantMessage]


@dataclass
class Played:
    reward: float = 0.0
    terminated: bool = False
    turns: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)


async def _play(env: Env, task: Task, policy: Policy) -> Played:
    played = Played()
    observation, _ = await env.reset(options={"task": task})
    played.messages += observation
    while not played.terminated and played.turns < env.max_turns:
        action = policy(task, played.messages)
        result = await env.step(action)
        played.messages += [action, *result.observation]
        played.reward += result.reward
        played.terminated = result.terminated
        played.metrics = dict(result.info["metrics"])
        played.turns += 1
        if result.truncated:
            break
    return played


@pytest.fixture
def play():
    return _play
