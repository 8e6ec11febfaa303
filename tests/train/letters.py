"""An environment that even a random policy earns something in: every answer is worth its share of vowels."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl import AssistantMessage, Env, Message, StepResult, Task, UserMessage

VOWELS = frozenset("aeiou")


class Letters(Env):
    """Two turns; the second one's words are the environment's answer to the first."""

    max_turns = 2

    def make_task(self, seed: int) -> Task:
        rng = random.Random(seed)
        return Task("".join(rng.choice("abcdefghij") for _ in range(6)))

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Sequence[Message], Mapping[str, Any]]:
        assert options is not None
        self.turn = 0
        return [UserMessage(content=options["task"].prompt)], {}

    async def step(self, action: AssistantMessage) -> StepResult:
        self.turn += 1
        text = action.content
        reward = sum(letter in VOWELS for letter in text) / len(text) if text else 0.0
        return StepResult([UserMessage(content=f"more than {len(text)}")], reward, self.turn == 2, False, {})

    async def conclude(self, action: AssistantMessage | None) -> Mapping[str, float]:
        return {"reward": 0.0}

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        return AssistantMessage(content="aeiouae")

    def demonstrate(self, task: Task, messages: Sequence[Message], rng: random.Random) -> AssistantMessage:
        return AssistantMessage(content="".join(rng.choice("abcdefghij") for _ in range(rng.randrange(1, 8))))
