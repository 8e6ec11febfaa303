"""Values as text for a model: JSON for what is not text, no lone surrogates, head and tail of what is too long.

What comes in: any value a tool returned. What goes out: a string that every tokenizer and file can take.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from pydantic import BaseModel


def as_text(value: object) -> str:
    """A string as it is; anything else as JSON.

    Raises:
        ValueError, TypeError, RecursionError: the value refers to itself, or has keys that JSON cannot hold.
    """
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain))


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


def _note(left_out: int) -> str:
    return f"\n[... {left_out} characters left out ...]\n"


def _plain(value: object) -> Any:
    """What JSON can hold instead of `value`: records as objects, sets in a fixed order, the rest as text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return str(value)
