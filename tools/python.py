"""Python for agents: a jailed session for each episode, whose variables and files stay from call to call.

What comes in: the program text that a model wrote. What goes out: what it printed and the value of its last expression,
the head and the tail of it if it is long, and in words whatever else happened: a time limit, a session that was lost.
A sandbox that fails raises SandboxFailure, so that the episode fails and no answer is scored. Knows nothing of rewards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentrl.env.text import shorten
from agentrl.env.tool import tool
from agentrl.sandbox import CellResult
from agentrl.tools.sessions import OPEN_S, QUEUE_S, Sandbox, run_cell

WALL_S = 10.0  # of one call
MAX_CHARS = 6000  # of what the model is shown

_WHY = {
    "memory": "it used more memory than it may",
    "output_limit": "it printed more than it may",
    "signal": "it crashed",
}


def python_tool(
    *, wall_s: float = WALL_S, max_chars: int = MAX_CHARS, sandbox: Sandbox | None = None
) -> Callable[[str], Awaitable[str]]:
    """A `python` tool with settings of one's own, for `extra_tools`.

    Args:
        wall_s: seconds after which a call is interrupted.
        max_chars: of the output that is shown; of more, the head and the tail.
        sandbox: where the code runs; the one that all tools share if None.
    """
    where = sandbox or Sandbox()

    @tool(deadline_s=wall_s + OPEN_S + QUEUE_S, max_result_chars=max_chars + 1000)
    async def python(code: str) -> str:
        """Run Python. Variables and files stay until the end of the task.

        Args:
            code: The program. The value of a last expression is shown.
        """
        result, news = await run_cell(where, code, wall_s)
        return news + shown(result, wall_s, max_chars)

    return python


def shown(result: CellResult, wall_s: float, max_chars: int) -> str:
    """What the model is told of a call. Errors keep their tail, whatever else was printed."""
    errors = shorten(result.stderr, max_chars // 2)
    output = shorten(result.stdout, max_chars - len(errors))
    gap = "\n" if output and errors and not output.endswith("\n") else ""
    words = [each for each in ((output + gap + errors).rstrip("\n"), _ending(result, wall_s)) if each]
    return "\n".join(words) or "(no output)"


def _ending(result: CellResult, wall_s: float) -> str:
    """In words, how a call ended that did not end by itself."""
    if result.lost:
        return lost_in_words(result.status, result.error, wall_s)
    return f"[{_late(wall_s)}; variables and files are still there]" if result.status == "timeout" else ""


def lost_in_words(status: str, error: str, wall_s: float) -> str:
    """In words, how a session ended in the middle of a call."""
    why = _WHY.get(status) or f"the program has left: {error}"
    if status == "timeout":
        why = f"it used more {error.removesuffix(' limit')} than it may" if "processor" in error else _late(wall_s)
    return f"[{why}. The session has ended: variables and files are gone, and the next call begins a new one.]"


def _late(wall_s: float) -> str:
    return f"it was stopped after {wall_s:g} s"


python = python_tool()
