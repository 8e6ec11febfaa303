"""Hermes and Qwen: JSON between tags, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentrl.messages import ToolCall
from agentrl.render.parsers.base import MAX_CALLS, Calls, Family
from agentrl.render.parsers.values import Unreadable, end_of_blanks, read_json, write_json

_CLOSE = "</tool_call>"
_TAG = re.compile(r"</?tool_call>")
_BEFORE_CALLS = ("", "\n", "}", ">")
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
        calls.add_object(payload, arguments="arguments", chars=end - begin)
        return end_of_blanks(text, end) + len(_CLOSE)

    def _write(self, calls: Sequence[ToolCall]) -> str:
        return "\n".join(
            f'<tool_call>\n{{"name": {write_json(call.name)}, "arguments": {write_json(call.arguments)}}}\n</tool_call>'
            for call in calls
        )


def end_of_call(text: str, start: int) -> tuple[int, bool]:
    """Where reading goes on after a call that cannot be read, and whether its closing tag is there.

    Pairs of tags inside it are quoted, and are no calls: its own closing tag is the one that balances its opening one.
    Without that, the next opening tag begins the next call, unless it seems to stand in a string.
    """
    depth, following, at = 1, len(text), start
    double = single = 0  # quotes
    for tag in _TAG.finditer(text, start):
        if tag[0] == _CLOSE:
            depth -= 1
            if depth == 0:
                return tag.end(), True
            continue
        depth += 1
        double, single = double + text.count('"', at, tag.start()), single + text.count("'", at, tag.start())
        at = tag.start()
        before = text[max(0, at - 8) : at].rstrip(" \t")[-1:]
        if before in _BEFORE_CALLS or not (double % 2 or single % 2):
            following = min(following, at)
        if depth > MAX_CALLS:
            break
    return following, False
