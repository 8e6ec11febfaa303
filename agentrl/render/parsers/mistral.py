"""Mistral: after the `[TOOL_CALLS]` token, in the newer or in the older form.

Newer models (from tokenizer version 11 on) write `[TOOL_CALLS]name[ARGS]{...}` for each call, older ones one JSON
list, `[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}]`. Every parser here reads both, and writes one.
An id of nine letters and digits, as Mistral's templates want them, is kept; so are the ids given here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agentrl.messages import ToolCall
from agentrl.render.parsers.base import THINK, Calls, Family, Tags
from agentrl.render.parsers.values import Unreadable, check_object, end_of_blanks, read_json, write_json

_MARK = "[TOOL_CALLS]"
_HEAD = re.compile(r"([^\s\[\]{}]{1,200}+)\s*+(?:\[CALL_ID\]([^\s\[\]{}]{0,100}+)\s*+)?+(?:\[ARGS\]\s*+|(?=\{))")
_LIST = re.compile(r"\[\s*+[{\]]")
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
        name = ""
        try:
            if _LIST.match(text, begin):
                payload, end = read_json(text, begin)
                _add_listed(payload, end - begin, calls)
                return end
            if text.startswith("{", begin):
                payload, end = read_json(text, begin)
                _add_object(payload, end - begin, calls)
                return end
            head = _HEAD.match(text, begin)
            if head is None:
                raise Unreadable("no tool's name and arguments stand after the TOOL_CALLS token")
            name = head[1]
            payload, end = read_json(text, head.end())
        except Unreadable as error:
            calls.refuse(error.reason, name)
            following = text.find(_MARK, begin)
            return len(text) if following < 0 else following
        try:
            name, arguments = check_object({"name": name, "arguments": payload}, arguments="arguments")
        except Unreadable as error:
            calls.refuse(error.reason, name)
        else:
            calls.add(name, arguments, chars=end - begin, call_id=_usable(head[2]))
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


def _add_listed(payload: Any, chars: int, calls: Calls) -> None:
    if not payload:
        calls.refuse("its list is empty")
    for item in payload:
        _add_object(item, chars, calls)


def _add_object(payload: Any, chars: int, calls: Calls) -> None:
    try:
        name, arguments = check_object(payload, arguments="arguments", ignored=("id",))
    except Unreadable as error:
        calls.refuse(error.reason, error.name)
    else:
        calls.add(name, arguments, chars=chars, call_id=_usable(payload.get("id")))


def _usable(call_id: Any) -> str | None:
    return call_id if isinstance(call_id, str) and _ID.fullmatch(call_id) else None


def _written(call: ToolCall) -> str:
    payload = {"name": call.name, "arguments": call.arguments}
    return write_json({**payload, "id": call.id} if _usable(call.id) else payload)
