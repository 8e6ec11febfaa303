"""JSON that may stand in a tool call.

What comes in: text, or what was read from it. What goes out: plain values, or `Unreadable` with a reason that the
model can use. Duplicate keys, NaN, numbers out of range, half surrogate pairs and deep nesting are refused. Knows no
family's format.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

MAX_DEPTH = 32  # of nested lists and objects
_MOST_SKIPPED = 100_000
_LENIENT = json.JSONDecoder()
_BLANKS = re.compile(r"\s*")


class Unreadable(ValueError):
    """A call, or a part of one, cannot be read.

    Args:
        reason: a clause about the call ("it is ...").
        name: the tool's name, as far as it was read.
        at: how far the text was read, where that is known.
    """

    def __init__(self, reason: str, name: str = "", at: int = -1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.name = name
        self.at = at


def read_json(text: str, begin: int) -> tuple[Any, int]:
    """The JSON value that begins at `begin`, and where it ends.

    Raises:
        Unreadable: there is none.
    """
    try:
        return _DECODER.raw_decode(text, begin)
    except json.JSONDecodeError as error:
        reason = f"it is not valid JSON ({error.msg} at character {error.pos - begin})"
        if end_of_blanks(text, error.pos) == len(text):
            reason = f"it is cut off: the JSON ends too early, at character {error.pos - begin}"
        raise Unreadable(reason, at=error.pos) from None
    except Unreadable:
        raise
    except (ValueError, RecursionError):
        raise Unreadable("it is too large or too deeply nested") from None


def end_of_json(text: str, begin: int) -> int:
    """Where the JSON value that begins at `begin` ends, or as far as it could be read: past `begin` in any case."""
    part = text[begin : begin + _MOST_SKIPPED]  # an error counts the lines before it, in all that it is given
    try:
        return begin + max(1, _LENIENT.raw_decode(part)[1])
    except json.JSONDecodeError as error:
        return begin + max(1, error.pos)
    except (ValueError, RecursionError):
        return begin + len(part)


def check_object(payload: Any, *, arguments: str, ignored: tuple[str, ...] = ()) -> tuple[str, Any]:
    """Name and arguments of a call that was written as one JSON object.

    Args:
        arguments: the key of the arguments.
        ignored: keys that may stand beside "name" and the arguments.

    Raises:
        Unreadable: it is no such object. What is in the arguments is not looked at.
    """
    if not isinstance(payload, dict):
        raise Unreadable(f"it is {kind(payload)}, not an object")
    name = payload.get("name")
    if not isinstance(name, str) or not name:
        raise Unreadable('"name" is missing' if name is None else '"name" is not a string with text')
    unknown = [key for key in payload if key not in ("name", arguments, *ignored)]
    if unknown:
        raise Unreadable(f'it has the unknown key {unknown[0][:40]!r}; only "name" and "{arguments}" are read', name)
    given = payload.get(arguments, {})
    if isinstance(given, str):
        raise Unreadable(f'"{arguments}" is a string; write the object itself, without quotes around it', name)
    if not isinstance(given, dict):
        raise Unreadable(f'"{arguments}" is {kind(given)}, not an object', name)
    return name, given


def check_arguments(name: str, arguments: dict[str, Any]) -> None:
    """Refuse what cannot be kept in records and sent to a tool.

    Raises:
        Unreadable: nested too deep, or not JSON.
    """
    if too_deep(arguments):
        raise Unreadable(f"it is nested deeper than {MAX_DEPTH}")
    try:
        json.dumps([name, arguments], ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise Unreadable("it holds a number out of range or half of a surrogate pair") from None


def too_deep(value: Any) -> bool:
    layer, depth = [value], 0
    while layer := [item for item in layer if isinstance(item, list | dict)]:
        depth += 1
        if depth > MAX_DEPTH:
            return True
        layer = [child for item in layer for child in (item.values() if isinstance(item, dict) else item)]
    return False


def end_of_blanks(text: str, start: int) -> int:
    match = _BLANKS.match(text, start)
    assert match is not None
    return match.end()


def write_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def clean(text: str) -> str:
    """The text with half surrogate pairs replaced by "?"."""
    return text.encode(errors="replace").decode()


def kind(value: Any) -> str:
    names: dict[type, str] = {list: "a list", dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise Unreadable(f"the key {key[:40]!r} stands twice in one object")
        out[key] = value
    return out


def _no_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=_no_constant)
