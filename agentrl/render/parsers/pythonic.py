"""Llama 3.2, Llama 4, ToolACE and LFM2: a Python list of calls, `[f(a=1), g(b="x")]`.

Arguments are literals and are read as such: nothing is compiled or evaluated, so no text can do more than be refused.
Unlike Python's own parser this one takes any word as an argument's name (`from`, `class`), reads true, false and null
as well, and stops at a depth of its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import Any

from agentrl.messages import ToolCall
from agentrl.render.parsers.base import MAX_CALL_CHARS, Calls, Family
from agentrl.render.parsers.values import MAX_DEPTH, Unreadable, write_json

_STRING = (
    r'[rRuUbBfF]{0,2}+(?:"""(?:[^"\\]|\\.|"(?!""))*+"""'
    r"|'''(?:[^'\\]|\\.|'(?!''))*+'''"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'(?:[^'\\\n]|\\.)*+')"
)
_NUMBER = r"[-+]?(?:0[xXoObB][0-9a-fA-F_]++|\d[\d_]*+(?:\.[\d_]*+)?+(?:[eE][-+]?\d++)?+|\.\d++(?:[eE][-+]?\d++)?+)"
_NAME = r"[^\W\d][\w.-]*+"
_TOKEN = re.compile(
    rf"\s*+(?:(?P<string>{_STRING})|(?P<number>{_NUMBER})|(?P<name>{_NAME})|(?P<mark>[\[\](){{}},:=])|(?P<end>\Z))",
    re.DOTALL,
)
_PIECE = re.compile(r'\\.|"(?:[^"\\\n]|\\.)*+"|' r"'(?:[^'\\\n]|\\.)*+'|[\[\](){}]", re.DOTALL)
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_ESCAPE = re.compile(r"\\([4-7][0-7]{2}|.)", re.DOTALL)
_ESCAPED = frozenset("\\'\"abfnrtvxuUN01234567\n")
_CLOSING = re.compile(r"\s*+<\|(?:python_end|tool_call_end)\|>")


class PythonicParser(Family):
    """`[name(key=literal, ...), ...]`, alone, in a text, or between the family's own tokens.

    A list of calls begins a line, or its first call has named arguments or none: so "see [f(x)]" is text.
    """

    opening = (
        r"(?:<\|(?:python_start|python_tag|tool_call_start)\|>\s*+|(?m:^)[ \t]*+)\[\s*+[^\W\d][\w.-]*+\s*+\("
        r"|\[\s*+[^\W\d][\w.-]*+\s*+\((?=\s*+\)|\s*+[^\W\d][\w.-]*+\s*+=)"
    )
    gap = ""
    wanted = (
        'Wanted: one list of calls, [tool_name(argument_name=value, other_name="text")], where every argument is named '
        "and every value is a literal."
    )

    def __init__(self, around: tuple[str, str] = ("", ""), write_string: Callable[[str], str] = write_json) -> None:
        self._around, self._write_string = around, write_string

    def _read(self, text: str, mark: re.Match[str], calls: Calls) -> int:
        begin = text.index("[", mark.start())
        tokens = _Tokens(text, begin + 1)
        try:
            while not tokens.take("]"):
                start = tokens.at
                name, arguments = _read_call(tokens)
                calls.add(name, arguments, chars=tokens.at - start)
                if not tokens.take(","):
                    tokens.want("]", "after a call")
                    break
        except Unreadable as error:
            calls.refuse(f"{error.reason}; what follows in the list is not read", error.name)
            end = _end_of_list(text, begin)
        else:
            end = tokens.before
        closing = _CLOSING.match(text, end)
        return closing.end() if closing else end

    def _write(self, calls: Sequence[ToolCall]) -> str:
        written = (
            f"{call.name}({', '.join(f'{key}={self._written(value)}' for key, value in call.arguments.items())})"
            for call in calls
        )
        return f"{self._around[0]}[{', '.join(written)}]{self._around[1]}"

    def _written(self, value: Any) -> str:
        if isinstance(value, str):
            return self._write_string(value)
        if isinstance(value, list):
            return f"[{', '.join(map(self._written, value))}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self._written(k)}: {self._written(v)}' for k, v in value.items())}}}"
        return repr(value)


def lfm2() -> PythonicParser:
    """As LFM2 writes: between tokens of its own, strings in single quotes."""
    return PythonicParser(("<|tool_call_start|>", "<|tool_call_end|>"), repr)


def read_call(text: str, begin: int) -> tuple[str, dict[str, Any], int]:
    """The one call `name(key=literal, ...)` that begins at `begin`, and where it ends.

    Raises:
        Unreadable: there is none.
    """
    tokens = _Tokens(text, begin)
    name, arguments = _read_call(tokens)
    return name, arguments, tokens.before


class _Tokens:
    """The text, token by token; the next one is already seen."""

    def __init__(self, text: str, start: int) -> None:
        self._text, self._limit = text, start + MAX_CALL_CHARS
        self.before = self.at = start  # ends of the token that was taken last, and of the next one
        self._see()

    def take(self, mark: str) -> bool:
        """Take the next token if it is `mark`."""
        if self.kind != "mark" or self.text != mark:
            return False
        self._see()
        return True

    def want(self, mark: str, where: str) -> None:
        if not self.take(mark):
            raise Unreadable(f"{self.shown()} stands {where}, where {mark!r} is wanted")

    def pop(self) -> tuple[str, str]:
        """Take the next token: its kind and its text."""
        taken = self.kind, self.text
        self._see()
        return taken

    def shown(self) -> str:
        if self.kind == "end":
            return "the end of the text"
        return repr(self.text[:20] or self._text[self.before : self.before + 40].strip()[:20])

    def _see(self) -> None:
        if self.at > self._limit:
            raise Unreadable(f"it has more than {MAX_CALL_CHARS} characters")
        self.before = self.at
        token = _TOKEN.match(self._text, self.at)
        if token is None:
            self.kind, self.text = "unknown", ""
        else:
            assert token.lastgroup is not None
            self.kind, self.text, self.at = token.lastgroup, token[token.lastgroup], token.end()


def _read_call(tokens: _Tokens) -> tuple[str, dict[str, Any]]:
    if tokens.kind != "name":
        raise Unreadable(f"{tokens.shown()} stands where the name of a tool is wanted")
    name = tokens.pop()[1]
    try:
        tokens.want("(", "after the name of the tool")
        return name, _read_arguments(tokens)
    except Unreadable as error:
        raise Unreadable(error.reason, name) from None


def _read_arguments(tokens: _Tokens) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    while not tokens.take(")"):
        where = tokens.shown()
        kind, key = tokens.pop()
        if kind != "name" or not tokens.take("="):
            raise Unreadable(f"{where} stands where an argument's name and = are wanted; every argument must be named")
        if key in arguments:
            raise Unreadable(f"the argument {key[:40]!r} stands twice")
        arguments[key] = _read_value(tokens, 1)
        if not tokens.take(","):
            tokens.want(")", "after an argument")
            break
    return arguments


def _read_value(tokens: _Tokens, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Unreadable(f"it is nested deeper than {MAX_DEPTH}")
    where = tokens.shown()
    kind, text = tokens.pop()
    if kind in ("string", "number"):
        return _read_literal(text)
    if kind == "name" and text in _WORDS:
        return _WORDS[text]
    if kind == "mark" and text == "[":
        return _read_list(tokens, depth)
    if kind == "mark" and text == "{":
        return _read_dict(tokens, depth)
    raise Unreadable(f"{where} is no literal; values are strings, numbers, True, False, None, lists and dicts of these")


def _read_list(tokens: _Tokens, depth: int) -> list[Any]:
    out: list[Any] = []
    while not tokens.take("]"):
        out.append(_read_value(tokens, depth + 1))
        if not tokens.take(","):
            tokens.want("]", "in a list")
            break
    return out


def _read_dict(tokens: _Tokens, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    while not tokens.take("}"):
        key = _read_value(tokens, depth + 1)
        if not isinstance(key, str):
            raise Unreadable("a key of a dict is not a string")
        if key in out:
            raise Unreadable(f"the key {key[:40]!r} stands twice in one dict")
        tokens.want(":", "after a key")
        out[key] = _read_value(tokens, depth + 1)
        if not tokens.take(","):
            tokens.want("}", "in a dict")
            break
    return out


def _read_literal(text: str) -> Any:
    raw = "r" in text[:2].lower().partition(text[-1])[0]
    try:
        value = ast.literal_eval(text if raw else _ESCAPE.sub(_known_escape, text))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise Unreadable(f"{text[:20]!r} cannot be read as a Python literal") from None
    if not isinstance(value, str | int | float):
        raise Unreadable(f"{text[:20]!r} is no JSON value")
    return value


def _known_escape(escape: re.Match[str]) -> str:
    """Python keeps a backslash that escapes nothing, as here, and warns."""
    return escape[0] if escape[1] in _ESCAPED else "\\" + escape[0]


def _end_of_list(text: str, begin: int) -> int:
    """Past the bracket that closes the one at `begin`, or the end of the text."""
    depth = 0
    for piece in _PIECE.finditer(text, begin):
        if piece[0] in ("[", "(", "{"):
            depth += 1
        elif piece[0] in ("]", ")", "}"):
            depth -= 1
        if depth == 0:
            return piece.end()
    return len(text)
