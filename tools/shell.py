"""Bash for agents: one jailed shell for each episode, whose folder, variables and files stay from command to command.

What comes in: the command line that a model wrote. What goes out: what it wrote, both streams as one, the head and the
tail of it if it is long; its exit code if that is not 0; and in words whatever else happened. The shell stands in the
episode's Python session, so `python` and `shell` see the same files. It needs a tier that may start programs: on
`landlock` it raises SandboxFailure. Knows nothing of rewards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentrl.env.tool import tool
from agentrl.sandbox import CommandResult
from agentrl.tools.python import lost_in_words
from agentrl.tools.sessions import OPEN_S, QUEUE_S, Sandbox, run_command

WALL_S = 30.0  # of one command
MAX_CHARS = 6000  # of what the model is shown
_NEXT = "the next command begins a new one; files stay"


def shell_tool(
    *, wall_s: float = WALL_S, max_chars: int = MAX_CHARS, sandbox: Sandbox | None = None
) -> Callable[[str], Awaitable[str]]:
    """A `shell` tool with settings of one's own, for `extra_tools`.

    Args:
        wall_s: seconds after which a command is killed, and the shell with it; files stay.
        max_chars: of the output that is shown; of more, the head and the tail.
        sandbox: where it runs; the one that all tools share if None.
    """
    where = sandbox or Sandbox()

    @tool(deadline_s=wall_s + OPEN_S + QUEUE_S, max_result_chars=max_chars + 1000)
    async def shell(command: str) -> str:
        """Run a command in bash. Files, variables and the folder stay until the end of the task.

        Args:
            command: One or more lines. There is no terminal and no input.
        """
        result, news = await run_command(where, command, wall_s, max_chars)
        return news + shown(result, wall_s)

    return shell


def shown(result: CommandResult, wall_s: float) -> str:
    """What the model is told of a command."""
    if result.lost:
        words = lost_in_words(result.status, result.error, wall_s)
    elif result.shell_lost:
        words = f"[{result.error}: {_NEXT}]"
    else:
        words = f"[exit code {result.exit_code}]" if result.exit_code else ""
    gap = "\n" if result.stdout and words and not result.stdout.endswith("\n") else ""
    return (result.stdout + gap + words).rstrip("\n") or "(no output)"


shell = shell_tool()
