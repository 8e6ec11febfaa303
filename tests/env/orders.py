"""The environment that the tests of this folder play: the example of the documentation, with an oracle."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from agentrl import AssistantMessage, Episode, Message, Task, ToolCall, ToolEnv, ToolMessage, TurnView, reward, tool

GOODS = ("lamp", "chair", "table", "clock", "vase")


class Orders(ToolEnv):
    """Answer questions about a customer's orders.

    Args:
        size: how many orders there are.
    """

    system_prompt = "You are a shop's assistant."
    max_turns = 6

    def __init__(self, size: int = 50) -> None:
        self.size = size  # no super().__init__(): ToolEnv must not depend on it

    def make_task(self, seed: int) -> Task:
        order = random.Random(seed).randrange(self.size)
        return Task(f"What was ordered with #W{order:04}?", answer=GOODS[order % len(GOODS)], data={"order": order})

    def setup(self, task: Task) -> None:
        self.db = {f"#W{order:04}": {"item": GOODS[order % len(GOODS)]} for order in range(self.size)}

    @tool
    def find_order(self, order_id: str) -> dict:
        """Look an order up.

        Args:
            order_id: The order's id, such as "#W0001".
        """
        return self.db[order_id]

    @tool(deadline_s=5.0)
    async def delete_order(self, order_id: str) -> str:
        """Delete an order for good.

        Args:
            order_id: The order's id.
        """
        del self.db[order_id]
        return "deleted"

    @reward(kind="outcome")
    def correct(self, task: Task, episode: Episode) -> float:
        return float(episode.final_text == task.answer)

    @reward(kind="process", weight=0.1)
    def valid_call(self, turn: TurnView) -> float:
        return float(bool(turn.calls) and all(result.error is None for _, result in turn.calls))

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        if isinstance(messages[-1], ToolMessage):
            return AssistantMessage(content=task.answer)
        return say(("find_order", {"order_id": f"#W{task.data['order']:04}"}))

    def state_id(self) -> str:
        return str(len(self.db))


class Sleepy(ToolEnv):
    """Tools that take their time, or never come back."""

    max_turns = 8

    def make_task(self, seed: int) -> Task:
        return Task(f"wait {seed}")

    @tool
    def block(self, seconds: float) -> str:
        """Block a thread."""
        time.sleep(seconds)
        return f"blocked {seconds}"

    @tool
    async def sleep(self, seconds: float) -> str:
        """Sleep."""
        await asyncio.sleep(seconds)
        return f"slept {seconds}"

    @tool(deadline_s=0.2)
    def hang(self) -> str:
        """Block far beyond the deadline."""
        time.sleep(20)
        return "never seen"

    @tool(deadline_s=0.2)
    async def stall(self) -> str:
        """Sleep far beyond the deadline."""
        await asyncio.sleep(3600)
        return "never seen"

    @reward("outcome")
    async def done(self, task: Task, episode: Episode) -> float:
        return 1.0


def say(*calls: tuple[str, dict[str, object]], content: str = "") -> AssistantMessage:
    """An action with these calls, ids c0, c1, ..."""
    tool_calls = tuple(ToolCall(id=f"c{i}", name=name, arguments=given) for i, (name, given) in enumerate(calls))
    return AssistantMessage(content=content, tool_calls=tool_calls)
