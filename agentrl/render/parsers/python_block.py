"""Plain Markdown: every ```` ```python ```` block is a call of one tool, with the block's code as its argument.

For policies that act by writing code and for models that know no tool calls. No chat template writes calls so: a
template must be given them as content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.errors import ConfigError
from agentrl.messages import ToolCall
from agentrl.render.parsers.base import Calls, Family

_MOST_TICKS = 100
_TICKS = re.compile(r"`+")


class PythonBlockParser(Family):
    """Blocks that a line with "```python" (or "```py") begins and a line of as many backticks ends; others are text.

    What stands in a block of another language, in one of four backticks or more, or between tildes is quoted.

    Args:
        tool: the tool that runs code.
        argument: its argument that takes the code.
    """

    opening = (
        rf"(?<!`)(?P<ticks>`{{3,{_MOST_TICKS}}}+)(?i:python3?|py)[ \t]*+\r?\n"
        rf"|(?m:^)[ \t]*+(?P<quote>`{{3,{_MOST_TICKS}}}+(?=[^`\s])|`{{4,{_MOST_TICKS}}}+|~{{3,{_MOST_TICKS}}}+)"
        r"[^`\n]*+\n"
    )
    in_templates = False
    wanted = "Wanted: a line with ```python, the code, and a line with ``` alone, for each call."

    def __init__(self, tool: str = "python", argument: str = "code") -> None:
        self.tool, self.argument = tool, argument

    def check(self, tool_schemas: Sequence[Mapping[str, Any]], env: str) -> None:
        """Refuse tools among which is none that the blocks could call; `env` names their environment.

        Raises:
            ConfigError: there is no such tool, or it has no such argument. No tools at all are fine: then the
                environment reads the calls itself.
        """
        arguments = {
            schema["function"]["name"]: list(schema["function"]["parameters"].get("properties", {}))
            for schema in tool_schemas
        }
        if arguments and self.tool not in arguments:
            raise ConfigError(
                f"the parser 'python_block' calls the tool {self.tool!r}, and {env} has none of that name; it has "
                f"{', '.join(arguments)}: name one, as in policy.parser = 'python_block:{next(iter(arguments))}'"
            )
        if arguments and self.argument not in arguments[self.tool]:
            raise ConfigError(
                f"the parser 'python_block' gives the code to the argument {self.argument!r} of the tool "
                f"{self.tool!r}, which takes {', '.join(arguments[self.tool]) or 'none'}: name one, as in "
                f"policy.parser = 'python_block:{self.tool}.{(arguments[self.tool] or ['code'])[0]}'"
            )

    def _text_end(self, text: str, mark: re.Match[str]) -> int | None:
        if mark["quote"] is None:
            return None
        end = _end_of_fence(text, mark.end(), mark["quote"])
        return len(text) if end is None else end.end()

    def _read(self, text: str, mark: re.Match[str], calls: Calls) -> int:
        end = _end_of_fence(text, mark.end(), mark["ticks"])
        if end is None:
            calls.refuse("it is cut off: the line that ends the block is missing", self.tool)
            return len(text)
        code = text[mark.end() : max(mark.end(), end.start() - 1)]
        calls.add(self.tool, {self.argument: code}, chars=len(code))
        return end.end()

    def _write(self, calls: Sequence[ToolCall]) -> str:
        """A call of another tool, which this form cannot express, is written as an empty block."""
        return "\n".join(self._written(call) for call in calls)

    def _written(self, call: ToolCall) -> str:
        code = str(call.arguments.get(self.argument, "")) if call.name == self.tool else ""
        longest = max((len(run) for run in _TICKS.findall(code)), default=0)
        ticks = "`" * max(3, longest + 1)
        return f"{ticks}python\n{code}\n{ticks}"


def _end_of_fence(text: str, start: int, fence: str) -> re.Match[str] | None:
    """The line that ends the block which `fence` began: at least as many of the same characters, and nothing else."""
    return re.compile(rf"^[ \t]*+{fence[0]}{{{len(fence)},}}+[ \t\r]*+$", re.MULTILINE).search(text, start)
