"""Qwen3-Coder, Qwen3.5 and Nemotron 3: tags for the function and for each of its parameters.

Values stand between their tags as they are: they are text, closing tags in them included, and stay text. What type an
argument has is known where the tool is known: the environment's validation reads numbers, booleans, lists and objects
from text. So a message holds exactly what was written, and a template that renders it again writes the same.
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
_INNER = re.compile(  # where a value, and what is quoted in it, may begin and end
    r"^[ \t]*+<(?P<open>parameter|function)=[^<>\n]{1,200}>|^[ \t]*+</(?P<close>function)>"
    r"|</parameter>(?P<ends>(?=\s*+(?:<parameter=|</function>)))?+",
    re.MULTILINE,
)
_PARAMETER_END = "</parameter>"
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
        end = _end_of_value(text, parameter.end())
        if end < 0:
            raise Unreadable(f"</parameter> is missing after the value of {key[:40]!r}")
        if key in arguments:
            raise Unreadable(f"the parameter {key[:40]!r} stands twice")
        arguments[key] = text[parameter.end() : end].removeprefix("\n").removesuffix("\n")
        at = end + len(_PARAMETER_END)


def _end_of_value(text: str, start: int) -> int:
    """Where the closing tag of the value that begins at `start` stands; -1 if it has none.

    It is one that another parameter or the function's end follows; any other stands in the value, if there is such a
    one. So do whole parameters and functions that begin lines of the value.
    """
    other = -1
    inside: list[str] = []
    for tag in _INNER.finditer(text, start):
        if tag["open"]:
            inside.append(tag["open"])
        elif tag["close"] is None and tag["ends"] is None:
            other = tag.start() if other < 0 and not inside else other
        elif inside:
            inside.pop()
        elif tag["close"]:
            break
        else:
            return tag.start()
    return other


def _written(call: ToolCall) -> str:
    parameters = "".join(
        f"<parameter={key}>\n{value if isinstance(value, str) else write_json(value)}\n</parameter>\n"
        for key, value in call.arguments.items()
    )
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"
