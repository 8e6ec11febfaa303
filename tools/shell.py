"""Bash for agents: one jailed shell for each episode, whose folder, variables and files stay from command to command.

What comes in: the command line that a model wrote. What goes out: what it wrote, both streams as one, the head and the
tail of it if it is long; its exit code if that is not 0; and in words whatever else happened. The shell is a child of
the episode's Python session and is driven from inside the jail, so `python` and `shell` see the same files. It needs a
tier that may start programs: on `landlock` it raises SandboxFailure. Knows nothing of rewards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from agentrl.env.tool import tool
from agentrl.errors import SandboxFailure
from agentrl.tools.python import shown
from agentrl.tools.sessions import OPEN_S, QUEUE_S, Sandbox, run_cell, session

WALL_S = 30.0  # of one command
MAX_CHARS = 6000  # of what the model is shown
_MARGIN_S = 3.0  # for the driver to end a command before the session ends the driver
_CANNOT = ("landlock",)  # tiers that start no programs

_DRIVER = Path(__file__).with_name("shell_driver.py").read_text(encoding="utf-8")
_CALL = """\
import sys as _sys
if "shell_driver" not in _sys.modules:
    _sys.modules["shell_driver"] = type(_sys)("shell_driver")
    exec({driver!r}, vars(_sys.modules["shell_driver"]))
_sys.modules["shell_driver"].run({command!r}, {wall_s!r}, {max_chars!r})
"""


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
        tier = (await session(where)).pool.tier
        if tier in _CANNOT:
            raise SandboxFailure(
                f"a shell starts programs, which tier {tier!r} does not allow: zygote or bwrap is wanted"
            )
        cell = _CALL.format(driver=_DRIVER, command=command, wall_s=wall_s, max_chars=max_chars)
        result, news = await run_cell(where, cell, wall_s + _MARGIN_S)
        return news + shown(result, wall_s + _MARGIN_S, max_chars + 500)

    return shell


shell = shell_tool()
