"""Mistral: after the `[TOOL_CALLS]` token, in the newer or in the older form.

Newer models (from tokenizer version 11 on) write `[TOOL_CALLS]name[ARGS]{...}` for each call, older ones one JSON
list, `[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}]`. Every parser here reads both, and writes one. Some
leave the token out between calls, as in `[TOOL_CALLS]a[ARGS]{...}b[ARGS]{...}`.
An id of nine letters and digits, as Mistral's templates want them, is kept; so are the ids given here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agentrl.messages import ToolCall
from agentrl.render.parsers.base import THINK, Calls, Family, Tags
from agentrl.render.parsers.values import Unreadable, end_of_blanks, read_json, write_json

_MARK = "[TOOL_CALLS]"
_HEAD = re.compile(r"([^\s\[\]{}]{1,200}+)\s*+(?:\[CALL_ID\]([^\s\[\]{}]{0,100}+)\s*+)?+(?:\[ARGS\]\s*+|(?=\{))")
_NEXT = re.compile(r"\s*+(?=[^\s\[\]{}]{1,200}+\s*+(?:\[CALL_ID\][^\s\[\]{}]{0,100}+\s*+)?+\[ARGS\])")
_LIST = re.compile(r"\[\s*+[{\]]")
_NO_CALL = "no tool's name and arguments stand after the TOOL_CALLS token"
_ID = re.compile(r"[a-zA-Z0-9]{9}")


class MistralParser(Family):
    """Writes `[TOOL_CALLS]name[ARGS]{...}`, as newer Mistral models do."""

    opening = re.escape(_MARK)
    tags = (Tags("[THINK]", "[/THINK]", inside="", after=""), THINK)
    id_format = "call{:05d}"
    gap = ""
    wanted = (
        "Wanted: the TOOL_CALLS token, the tool's name, the ARGS token and one JSON object "
        '{"argument name": value}, for each call.'
    )

    def _read(self, text: str, mark: re.Match[str], calls: Calls) -> int:
        begin = end_of_blanks(text, mark.end())
        try:
            if not text.startswith(("[", "{"), begin):
                return _read_named(text, begin, calls)
            if text[begin] == "[" and not _LIST.match(text, begin):
                raise Unreadable(_NO_CALL)
            payload, end = read_json(text, begin)
        except Unreadable as error:
            calls.refuse(error.reason, error.name)
            following = text.find(_MARK, begin)
            return len(text) if following < 0 else following
        if payload == []:
            calls.refuse("its list is empty")
        for item in payload if isinstance(payload, list) else [payload]:
            call_id = _usable(item.get("id")) if isinstance(item, dict) else None
            calls.add_object(item, arguments="arguments", ignored=("id",), chars=end - begin, call_id=call_id)
        return end

    def _write(self, calls: Sequence[ToolCall]) -> str:
        return "".join(f"{_MARK}{call.name}[ARGS]{write_json(call.arguments)}" for call in calls)


class MistralListParser(MistralParser):
    """Writes `[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}]`, as older Mistral models do.

    Args:
        blank: what stands before the list: nothing (Nemo), or a blank (7B v0.3).
    """

    wanted = (
        'Wanted: the TOOL_CALLS token and one JSON list of calls, [{"name": "tool name", "arguments": '
        '{"argument name": value}}].'
    )

    def __init__(self, blank: str = "") -> None:
        self._blank = blank

    def _write(self, calls: Sequence[ToolCall]) -> str:
        return f"{_MARK}{self._blank}[{', '.join(map(_written, calls))}]"


def mistral_v3() -> MistralListParser:
    """With a blank before the list."""
    return MistralListParser(" ")


def _read_named(text: str, begin: int, calls: Calls) -> int:
    """Read the calls `name[ARGS]{...}` that follow each other, and say where they end.

    Raises:
        Unreadable: one of them is none; those before it are kept.
    """
    while not calls.overflown:
        head = _HEAD.match(text, begin)
        if head is None:
            raise Unreadable(_NO_CALL)
        try:
            payload, end = read_json(text, head.end())
        except Unreadable as error:
            raise Unreadable(error.reason, head[1]) from None
        call = {"name": head[1], "arguments": payload}
        calls.add_object(call, arguments="arguments", chars=end - begin, call_id=_usable(head[2]))
        following = _NEXT.match(text, end)
        if following is None:
            break
        begin = following.end()
    return end


def _usable(call_id: Any) -> str | None:
    return call_id if isinstance(call_id, str) and _ID.fullmatch(call_id) else None


def _written(call: ToolCall) -> str:
    payload = {"name": call.name, "arguments": call.arguments}
    return write_json({**payload, "id": call.id} if _usable(call.id) else payload)
