"""What reward functions see: a turn, and the whole episode.

Frozen views made by `ToolEnv`; they hold messages and tool results, never tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.env.task import Task
from agentrl.env.tool import NO_TOOL, ToolResult
from agentrl.messages import AssistantMessage, Message, ToolCall
from agentrl.trajectory import ToolUse


@dataclass(frozen=True, slots=True)
class TurnView:
    """One action and what its tool calls gave."""

    index: int  # from 0
    action: AssistantMessage
    calls: tuple[tuple[ToolCall, ToolResult], ...]

    @property
    def tools(self) -> tuple[ToolUse, ...]:
        """Which tools were called, how long each took; the name is "" where there is no such tool."""
        return tuple(
            ToolUse("" if result.error in NO_TOOL else call.name, result.seconds, result.error)
            for call, result in self.calls
        )


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode that has ended."""

    task: Task
    messages: tuple[Message, ...]
    turns: tuple[TurnView, ...]
    truncated: bool = False  # a limit cut it; the policy did not end it

    @property
    def final_text(self) -> str:
        """The text of the final answer; "" if the episode was cut before the policy gave one."""
        last = self.messages[-1] if self.messages else None
        return last.content if isinstance(last, AssistantMessage) and not last.tool_calls else ""
