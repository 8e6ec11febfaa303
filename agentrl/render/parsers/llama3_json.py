"""Llama 3.x: a bare JSON object, `{"name": ..., "parameters": {...}}`.

No tag says where a call begins. An object is one where a name and parameters are its first keys, or where
`<|python_tag|>` stands before it; every other object is text, with all that stands in it, such as an answer in JSON.
OpenAI's form around a call, `{"type": "function", "function": {...}}`, is read through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from agentrl.messages import ToolCall
from agentrl.render.parsers.base import Calls, Family
from agentrl.render.parsers.pythonic import read_call
from agentrl.render.parsers.values import Unreadable, end_of_blanks, end_of_json, read_json, write_json

_TYPE = r'"type"\s*+:\s*+"function"\s*+'
_NAME = r'"name"\s*+:\s*+"[^"\n]{0,200}+"\s*+'
_BARE = rf'{_NAME},\s*+(?:{_TYPE},\s*+)?+"(?:parameters|arguments)"\s*+:'
_OBJECT = rf'\{{\s*+(?:{_TYPE},\s*+)?+(?:{_BARE}|"function"\s*+:\s*+\{{\s*+{_BARE})'
_PYTHON = r"<\|python_tag\|>"
_FOLLOWING = re.compile(rf"{_PYTHON}|(?:^[^\S\n]*+|[;}}]\s*+)(?P<call>(?={_OBJECT}))", re.MULTILINE)
_SEPARATOR = re.compile(r"\s*+;\s*+")
_WRAPPER = frozenset(("type", "function"))
_BUILTIN = re.compile(r"[^\W\d]\w*+\.call\s*+\(")


class Llama3JsonParser(Family):
    """`{"name": ..., "parameters": {...}}`, several separated by `;`, with or without `<|python_tag|>` before them.

    `<|python_tag|>tool.call(key="value")`, as Llama 3.1 calls its built-in tools, is read as well.
    """

    opening = rf'(?P<python>{_PYTHON})|(?P<call>(?={_OBJECT}))|(?=\{{\s*+")'
    wanted: ClassVar[str] = (
        'Wanted: one JSON object {"name": "tool name", "parameters": {"argument name": value}} for each call, '
        "separated by ; and with nothing else."
    )
    _next: ClassVar[re.Pattern[str]] = re.compile(rf"{_PYTHON}|(?={_OBJECT})")

    def _text_end(self, text: str, mark: re.Match[str]) -> int | None:
        is_text = mark["python"] is None and mark["call"] is None
        return end_of_json(text, mark.start()) if is_text else None

    def _read(self, text: str, mark: re.Match[str], calls: Calls) -> int:
        begin = end_of_blanks(text, mark.end())
        if _BUILTIN.match(text, begin):
            return self._read_builtin(text, begin, calls)
        try:
            payload, end = read_json(text, begin)
        except Unreadable as error:
            calls.refuse(error.reason)
            return self._after_broken(text, max(begin + 1, error.at))
        if isinstance(payload, dict) and isinstance(payload.get("function"), dict) and payload.keys() <= _WRAPPER:
            payload = payload["function"]
        calls.add_object(payload, arguments="parameters", ignored=("type",), chars=end - begin)
        separator = _SEPARATOR.match(text, end)
        if separator and (separator.end() == len(text) or self._next.match(text, separator.end())):
            return separator.end()
        return end

    def _after_broken(self, text: str, start: int) -> int:
        """The next call; one that stands in a line of other text is quoted in what is broken."""
        following = _FOLLOWING.search(text, start)
        if following is None:
            return len(text)
        return following.start() if following["call"] is None else following.start("call")

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
