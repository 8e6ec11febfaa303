"""Tool-call parsers: the text of an action <-> the assistant's message.

What comes in: the decoded completion, its end-of-turn token taken off. What goes out: an `AssistantMessage`. `parse`
takes any text at all: a call that cannot be read becomes a `ToolCall` whose `error` tells the policy what was wrong.
Knows nothing of tokens or of which tools there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from agentrl.messages import AssistantMessage, ToolCall

MAX_CALLS = 32  # of one turn
MAX_CALL_CHARS = 100_000
MAX_DEPTH = 32  # of nested lists and objects

_WANTED = (
    'Wanted: one JSON object {"name": "tool name", "arguments": {"argument name": value}} between an opening and a '
    "closing tool_call tag, for each call."
)
_MARK = re.compile(r"<think>|</think>|<tool_call>")
_CALL_MARK = re.compile(r"</?tool_call>")
_CLOSE = "</tool_call>"
_BLANKS = re.compile(r"\s*")


class ToolParser(Protocol):
    """Reads and writes the assistant's turn in one family's format."""

    def parse(self, text: str) -> AssistantMessage:
        """Read an action. Never raises."""
        ...

    def format(self, message: AssistantMessage) -> str:
        """Write an action as the family's chat templates do, without the end-of-turn token."""
        ...


class HermesParser:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>` and `<think>` blocks, as Hermes and Qwen write them.

    Text around calls and thinking is kept in `content`, without the blanks at its ends. A thinking block that was cut
    runs to the end of the text: calls inside thinking are thoughts, not calls.
    """

    def parse(self, text: str) -> AssistantMessage:
        text = text.encode(errors="replace").decode()  # half surrogates cannot be held in a message
        content: list[str] = []
        thinking: list[str] = []
        calls: list[ToolCall] = []
        at = 0
        while mark := _MARK.search(text, at):
            content.append(text[at : mark.start()])
            at = mark.end()
            if mark[0] == "<tool_call>":
                if len(calls) == MAX_CALLS:
                    calls[-1] = _refused(len(calls) - 1, f"there are more than {MAX_CALLS} calls in one turn")
                    at = len(text)
                    break
                call, at = _read_call(text, at, len(calls))
                calls.append(call)
            elif mark[0] == "<think>":
                end = text.find("</think>", at)
                thinking.append(text[at:] if end < 0 else text[at:end])
                at = len(text) if end < 0 else end + len("</think>")
            elif thinking or calls:
                content.append(mark[0])
            else:  # the opening tag stood in the prompt, or was left out
                thinking, content = content, []
        content.append(text[at:])
        return AssistantMessage(
            content="".join(content).strip(),
            tool_calls=tuple(calls),
            thinking="\n".join(part.strip() for part in thinking) if thinking else None,
        )

    def format(self, message: AssistantMessage) -> str:
        calls = [
            f'<tool_call>\n{{"name": {_json(call.name)}, "arguments": {_json(call.arguments)}}}\n</tool_call>'
            for call in message.tool_calls
        ]
        body = "\n".join([message.content, *calls] if message.content else calls)
        return body if message.thinking is None else f"<think>\n{message.thinking}\n</think>\n\n{body}"


PARSERS: Mapping[str, type[ToolParser]] = {"hermes": HermesParser}


def _read_call(text: str, start: int, index: int) -> tuple[ToolCall, int]:
    """Read the call that begins at `start`, after its opening tag; also return where reading goes on."""
    begin = _end_of_blanks(text, start)
    try:
        payload, end = _DECODER.raw_decode(text, begin)
        end = _end_of_blanks(text, end)
        reason = None if text.startswith(_CLOSE, end) else "text follows the JSON object"
    except json.JSONDecodeError as error:
        end, reason = begin, f"it is not valid JSON ({error.msg} at character {error.pos - begin})"
    except (ValueError, RecursionError) as error:
        end, reason = begin, str(error) if isinstance(error, _BadValue) else "it is too large or too deeply nested"
    if reason is None:
        after = end + len(_CLOSE)
        return _checked(payload, end - begin, index), after
    mark = _CALL_MARK.search(text, end)
    if mark is None or mark[0] != _CLOSE:
        reason = "it is cut off: its closing tag is missing"
    after = len(text) if mark is None else mark.end() if mark[0] == _CLOSE else mark.start()
    return _refused(index, reason), after


def _checked(payload: Any, chars: int, index: int) -> ToolCall:
    if not isinstance(payload, dict):
        return _refused(index, f"it is {_kind(payload)}, not an object")
    name = payload.get("name")
    if not isinstance(name, str) or not name:
        return _refused(index, '"name" is missing' if name is None else '"name" is not a string with text')
    arguments = payload.get("arguments", {})
    unknown = [key for key in payload if key not in ("name", "arguments")]
    reason = None
    if chars > MAX_CALL_CHARS:
        reason = f"it has {chars} characters, more than {MAX_CALL_CHARS}"
    elif unknown:
        reason = f'it has the unknown key {unknown[0][:40]!r}; only "name" and "arguments" are read'
    elif isinstance(arguments, str):
        reason = '"arguments" is a string; write the object itself, without quotes around it'
    elif not isinstance(arguments, dict):
        reason = f'"arguments" is {_kind(arguments)}, not an object'
    elif _too_deep(arguments):
        reason = f"it is nested deeper than {MAX_DEPTH}"
    elif not _can_be_written(payload):
        reason = "it holds a number out of range or half of a surrogate pair"
    if reason is not None:
        return _refused(index, reason, name)
    return ToolCall(id=f"call_{index}", name=name, arguments=arguments)


def _refused(index: int, reason: str, name: str = "") -> ToolCall:
    name = name.encode(errors="replace").decode()[:100]
    return ToolCall(id=f"call_{index}", name=name, error=f"the tool call cannot be read: {reason}. {_WANTED}")


class _BadValue(ValueError):
    """JSON that Python reads and agentrl does not."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise _BadValue(f"the key {key[:40]!r} stands twice in one object")
        out[key] = value
    return out


def _no_constant(name: str) -> NoReturn:
    raise _BadValue(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)


def _too_deep(value: Any) -> bool:
    layer, depth = [value], 0
    while layer := [item for item in layer if isinstance(item, list | dict)]:
        depth += 1
        if depth > MAX_DEPTH:
            return True
        layer = [child for item in layer for child in (item.values() if isinstance(item, dict) else item)]
    return False


def _can_be_written(payload: Any) -> bool:
    try:
        json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True


def _end_of_blanks(text: str, start: int) -> int:
    match = _BLANKS.match(text, start)
    assert match is not None
    return match.end()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    names: dict[type, str] = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
