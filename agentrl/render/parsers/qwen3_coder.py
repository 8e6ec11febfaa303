"""Qwen3-Coder, Qwen3.5 and Nemotron 3: tags for the function and for each of its parameters.

Values stand between their tags as they are: they are text, and stay text. What type an argument has is known where the
tool is known: the environment's validation reads numbers, booleans, lists and objects from text. So a message holds
exactly what was written, and a template that renders it again writes the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agentrl.messages import ToolCall
from agentrl.render.parsers.base import Calls, Family
from agentrl.render.parsers.hermes import CUT, end_of_call
from agentrl.render.parsers.values import Unreadable, end_of_blanks, write_json

_FUNCTION = re.compile(r"<function=([^<>\n]{1,200})>")
_PARAMETER = re.compile(r"<parameter=([^<>\n]{1,200})>")
_VALUE_END = re.compile(r"</parameter>|^[ \t]*+(?:<parameter=|</function>)", re.MULTILINE)
_END = "</function>"
_CLOSE = "</tool_call>"


class Qwen3CoderParser(Family):
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`; every value is text.

    The tool_call tags may be missing around a complete function, as these models sometimes leave them out.
    """

    opening = "<tool_call>|(?=<function=)"
    gap = "\n\n"
    wanted = (
        "Wanted: <function=tool name>, then <parameter=argument name>, a new line, the value, a new line and "
        "</parameter> for each argument, then </function>, all between an opening and a closing tool_call tag."
    )

    def _read(self, text: str, mark: re.Match[str], calls: Calls) -> int:
        begin = end_of_blanks(text, mark.end())
        function = _FUNCTION.match(text, begin)
        name = function[1].strip() if function else ""
        try:
            if function is None or not name:
                raise Unreadable("no <function=tool name> stands at its beginning")
            arguments, end = _read_parameters(text, function.end())
        except Unreadable as error:
            after, closed = end_of_call(text, begin if function is None else function.end())
            calls.refuse(error.reason if closed else CUT, name)
            return after
        calls.add(name, arguments, chars=end - begin)
        after = end_of_blanks(text, end)
        return after + len(_CLOSE) if text.startswith(_CLOSE, after) else end

    def _write(self, calls: Sequence[ToolCall]) -> str:
        return "\n".join(_written(call) for call in calls)


def _read_parameters(text: str, at: int) -> tuple[dict[str, Any], int]:
    """The arguments, and where the function ended."""
    arguments: dict[str, Any] = {}
    while True:
        at = end_of_blanks(text, at)
        if text.startswith(_END, at):
            return arguments, at + len(_END)
        parameter = _PARAMETER.match(text, at)
        if parameter is None:
            raise Unreadable(f"{text[at : at + 40]!r} stands where <parameter=argument name> or </function> is wanted")
        key = parameter[1].strip()
        end = _VALUE_END.search(text, parameter.end())
        if end is None or end[0] != "</parameter>":
            raise Unreadable(f"</parameter> is missing after the value of {key[:40]!r}")
        if key in arguments:
            raise Unreadable(f"the parameter {key[:40]!r} stands twice")
        arguments[key] = text[parameter.end() : end.start()].removeprefix("\n").removesuffix("\n")
        at = end.end()


def _written(call: ToolCall) -> str:
    parameters = "".join(
        f"<parameter={key}>\n{value if isinstance(value, str) else write_json(value)}\n</parameter>\n"
        for key, value in call.arguments.items()
    )
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"
