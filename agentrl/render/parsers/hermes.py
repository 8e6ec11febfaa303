"""Hermes and Qwen: JSON between tags, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentrl.messages import ToolCall
from agentrl.render.parsers.base import Calls, Family
from agentrl.render.parsers.values import Unreadable, check_object, end_of_blanks, read_json, write_json

_CLOSE = "</tool_call>"
_TAG = re.compile(r"</?tool_call>")
CUT = "it is cut off: its closing tag is missing"


class HermesParser(Family):
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, as Hermes, Qwen2.5 and Qwen3 write calls."""

    opening = "<tool_call>"
    wanted = (
        'Wanted: one JSON object {"name": "tool name", "arguments": {"argument name": value}} between an opening and '
        "a closing tool_call tag, for each call."
    )

    def _read(self, text: str, mark: re.Match[str], calls: Calls) -> int:
        begin = end = end_of_blanks(text, mark.end())
        try:
            payload, end = read_json(text, begin)
            if not text.startswith(_CLOSE, end_of_blanks(text, end)):
                raise Unreadable("text follows the JSON object")
        except Unreadable as error:
            after, closed = end_of_call(text, end)
            calls.refuse(error.reason if closed else CUT)
            return after
        try:
            name, arguments = check_object(payload, arguments="arguments")
        except Unreadable as error:
            calls.refuse(error.reason, error.name)
        else:
            calls.add(name, arguments, chars=end - begin)
        return end_of_blanks(text, end) + len(_CLOSE)

    def _write(self, calls: Sequence[ToolCall]) -> str:
        return "\n".join(
            f'<tool_call>\n{{"name": {write_json(call.name)}, "arguments": {write_json(call.arguments)}}}\n</tool_call>'
            for call in calls
        )


def end_of_call(text: str, start: int) -> tuple[int, bool]:
    """Where reading goes on after a call that cannot be read, and whether its closing tag is there."""
    tag = _TAG.search(text, start)
    if tag is None:
        return len(text), False
    return (tag.end(), True) if tag[0] == _CLOSE else (tag.start(), False)
