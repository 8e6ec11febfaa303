"""Play an episode of an env directly, without an engine; find the real data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agentrl.env import Env, Task
from agentrl.messages import AssistantMessage, Message

Policy = Callable[[Task, Sequence[Message]], AssistantMessage]
REPOSITORY = Path(__file__).resolve().parents[2]


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


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data, with AGENTRL_DATA set to it."""
    root = Path(os.environ.get("AGENTRL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (root / "gsm8k" / "test.jsonl").is_file():
        pytest.skip(f"no GSM8K files under {root}; set AGENTRL_DATA to the folder that holds gsm8k/")
    monkeypatch.setenv("AGENTRL_DATA", str(root))
    return root
