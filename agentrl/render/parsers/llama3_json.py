"""Llama 3.x: a bare JSON object, `{"name": ..., "parameters": {...}}`.

No tag says where a call begins. An object is one where a name and parameters are its first keys, or where
`<|python_tag|>` stands before it; every other object is text, such as an answer in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from agentrl.messages import ToolCall
from agentrl.render.parsers.base import Calls, Family
from agentrl.render.parsers.pythonic import read_call
from agentrl.render.parsers.values import Unreadable, check_object, end_of_blanks, read_json, write_json

_TYPE = r'"type"\s*+:\s*+"function"\s*+'
_NAME = r'"name"\s*+:\s*+"[^"\n]{0,200}+"\s*+'
_OBJECT = rf'\{{\s*+(?:{_TYPE},\s*+)?+{_NAME},\s*+(?:{_TYPE},\s*+)?+"(?:parameters|arguments)"\s*+:'
_SEPARATOR = re.compile(r"\s*+;\s*+")
_BUILTIN = re.compile(r"[^\W\d]\w*+\.call\s*+\(")


class Llama3JsonParser(Family):
    """`{"name": ..., "parameters": {...}}`, several separated by `;`, with or without `<|python_tag|>` before them.

    `<|python_tag|>tool.call(key="value")`, as Llama 3.1 calls its built-in tools, is read as well.
    """

    opening = rf"(?P<python><\|python_tag\|>)|(?={_OBJECT})"
    wanted: ClassVar[str] = (
        'Wanted: one JSON object {"name": "tool name", "parameters": {"argument name": value}} for each call, '
        "separated by ; and with nothing else."
    )
    _next: ClassVar[re.Pattern[str]] = re.compile(opening)

    def _read(self, text: str, mark: re.Match[str], calls: Calls) -> int:
        begin = end_of_blanks(text, mark.end())
        if _BUILTIN.match(text, begin):
            return self._read_builtin(text, begin, calls)
        try:
            payload, end = read_json(text, begin)
        except Unreadable as error:
            calls.refuse(error.reason)
            return self._after_broken(text, max(begin + 1, error.at))
        try:
            name, arguments = check_object(payload, arguments="parameters", ignored=("type",))
        except Unreadable as error:
            calls.refuse(error.reason, error.name)
        else:
            calls.add(name, arguments, chars=end - begin)
        separator = _SEPARATOR.match(text, end)
        if separator and (separator.end() == len(text) or self._next.match(text, separator.end())):
            return separator.end()
        return end

    def _after_broken(self, text: str, start: int) -> int:
        following = self._next.search(text, start)
        return len(text) if following is None else following.start()

    def _read_builtin(self, text: str, begin: int, calls: Calls) -> int:
        try:
            name, arguments, end = read_call(text, begin)
        except Unreadable as error:
            calls.refuse(error.reason, error.name)
            return self._after_broken(text, begin + 1)
        calls.add(name.removesuffix(".call"), arguments, chars=end - begin)
        return end

    def _write(self, calls: Sequence[ToolCall]) -> str:
        return "; ".join(
            f'{{"name": {write_json(call.name)}, "parameters": {write_json(call.arguments)}}}' for call in calls
        )
