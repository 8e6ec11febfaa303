"""An environment whose policy writes code, and what tests of sandboxed tools ask of it and of the machine."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl import AssistantMessage, Task, ToolCall, ToolEnv, reward
from agentrl.env import Episode
from agentrl.messages import Message
from agentrl.sandbox import Limits
from agentrl.tools.python import python_tool
from agentrl.tools.sessions import Sandbox
from agentrl.tools.shell import shell_tool

SANDBOX = Sandbox(limits=Limits(memory_bytes=200 << 20))


class Coder(ToolEnv):
    """Find a number with code; the oracle squares the task's number in a file, through both tools."""

    max_turns = 12
    extra_tools = (python_tool(wall_s=4, sandbox=SANDBOX), shell_tool(wall_s=4, sandbox=SANDBOX))

    def make_task(self, seed: int) -> Task:
        return Task(prompt=f"What is {seed} * {seed}?", answer=str(seed * seed), data={"n": seed})

    @reward(kind="outcome")
    async def right(self, task: Task, episode: Episode) -> float:
        return float(episode.final_text == task.answer)

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        n, last = task.data["n"], messages[-1].content
        steps = [
            said("shell", f"echo {n} > n.txt"),
            said("python", "n = int(open('n.txt').read())"),
            said("python", "n * n"),
        ]
        turn = sum(isinstance(message, AssistantMessage) for message in messages)
        return steps[turn] if turn < len(steps) else AssistantMessage(content=str(last).strip())


def said(tool: str, text: str) -> AssistantMessage:
    return AssistantMessage(tool_calls=(call(tool, text),))


def call(tool: str, text: str, id: str = "1") -> ToolCall:
    return ToolCall(id=id, name=tool, arguments={"code" if tool == "python" else "command": text})


async def ask(env: Coder, tool: str, text: str) -> str:
    """One action of one call, and its answer."""
    result = await env.step(said(tool, text))
    return str(result.observation[0].content)
