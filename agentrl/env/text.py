"""Values as text for a model: JSON for what is not text, no lone surrogates, head and tail of what is too long.

What comes in: any value a tool returned. What goes out: a string that every tokenizer and file can take.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def as_text(value: object, limit: int) -> str:
    """A string as it is, bytes as UTF-8, anything else as JSON: at most `limit` characters of it.

    What is huge costs little: bytes and JSON are only written out as far as they are shown, because that is done on the
    event loop. Of huge JSON the tail is not shown.

    Raises:
        ValueError, TypeError, RecursionError: the value refers to itself, or has keys that JSON cannot hold.
    """
    if isinstance(value, bytes | bytearray):
        return _decoded(bytes(value), limit)
    if isinstance(value, str):
        return clean(shorten(value, limit))
    if _room_left(value, _QUICK) > 0:
        return clean(shorten(json.dumps(value, ensure_ascii=False, default=_plain), limit))
    pieces, length = [], 0
    for piece in _ENCODER.iterencode(value):
        pieces.append(piece)
        length += len(piece)
        if length > _QUICK + limit:
            return clean("".join(pieces)[: limit - len(_CUT)] + _CUT)
    return clean(shorten("".join(pieces), limit))


def clean(text: str) -> str:
    """The text with lone surrogates replaced, which UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters: of a longer text the head and the tail, with a note between them."""
    if len(text) <= limit:
        return text
    room = limit - len(_note(len(text)))
    tail = room // 3
    head = room - tail
    return f"{text[:head]}{_note(len(text) - room)}{text[len(text) - tail :]}"


def _note(left_out: int, what: str = "characters") -> str:
    return f"\n[... {left_out} {what} left out ...]\n"


def _decoded(value: bytes, limit: int) -> str:
    """Bytes as UTF-8, what is no UTF-8 replaced. Of very many, those in the middle are not looked at."""
    if len(value) <= max(_QUICK, 4 * limit):
        return shorten(value.decode("utf-8", "replace"), limit)
    room = limit - len(_note(len(value), "bytes"))
    tail = room // 3
    head = value[: 4 * (room - tail)].decode("utf-8", "replace")[: room - tail]
    end = value[-4 * tail :].decode("utf-8", "replace")[-tail:]
    return f"{head}{_note(len(value) - len(head.encode()) - len(end.encode()), 'bytes')}{end}"


def _room_left(value: object, room: int, depth: int = 100) -> int:
    """`room` less the characters and items in `value`, looked at until none is left; 0 where `value` is very deep."""
    if not depth:
        return 0
    if isinstance(value, str | bytes | bytearray):
        return room - len(value)
    if isinstance(value, Mapping):
        value = itertools.chain.from_iterable(value.items())
    elif not isinstance(value, list | tuple | set | frozenset):
        return room - 1
    for item in value:
        room = _room_left(item, room - 1, depth - 1)
        if room <= 0:
            break
    return room


def _plain(value: object) -> Any:
    """What JSON can hold instead of `value`: records as objects, sets in a fixed order, the rest as text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    return str(value)


_QUICK = 100_000  # characters and items that are written out without a thought for the time
_CUT = "\n[... the rest is left out ...]"
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=_plain)
