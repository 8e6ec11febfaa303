"""Keeps text that is not ours from becoming special tokens.

What comes in: the strings that a tokenizer reads as special tokens, and text from users, tools and policies. What
goes out: the same text, cut so that no piece holds such a string. Every occurrence is cut after its first character,
so pieces that are encoded one by one give ordinary tokens, and joined they are the text again. Knows no tokenizer and
no template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


class SpecialStrings:
    """The strings that a tokenizer reads as special tokens. Each has two characters or more."""

    def __init__(self, strings: Iterable[str]) -> None:
        self.strings = tuple(strings)
        either = "|".join(re.escape(s) for s in sorted(self.strings, key=len, reverse=True)) or r"(?!)"
        self._search = re.compile(either).search
        self._finditer = re.compile(either).finditer
        self._split = re.compile(either).split
        self._start = re.compile(f"(?={either}).", re.DOTALL)  # consumes one character, so overlaps are found too

    def found_in(self, value: Any) -> bool:
        """Whether a string inside `value` (nested lists and dicts, keys included) holds a special string."""
        search, left = self._search, [value]
        while left:  # runs on every turn: no recursion, and the plain types first
            item = left.pop()
            if type(item) is str or isinstance(item, str):
                if search(item):
                    return True
            elif type(item) is dict or isinstance(item, Mapping):
                left += item
                left += item.values()
            elif type(item) is list or isinstance(item, list | tuple):
                left += item
        return False

    def all_in(self, text: str) -> list[str]:
        """Every special string in `text`, in order, the longest where several begin."""
        return [match[0] for match in self._finditer(text)]

    def between(self, text: str) -> list[str]:
        """The text between the special strings of `text`."""
        pieces: list[str] = self._split(text)
        return pieces

    def last(self, text: str, limit: int) -> int:
        """Where the last special string of `text` begins that begins at `limit` or before; 0 where there is none."""
        return max((match.start() for match in self._finditer(text) if match.start() <= limit), default=0)

    def cut(self, value: Any, mark: str) -> Any:
        """`value` with `mark` written after the first character of every special string in it."""
        if isinstance(value, str):
            return self._start.sub(lambda match: match[0] + mark, value)
        if isinstance(value, Mapping):
            return {self.cut(k, mark): self.cut(v, mark) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.cut(item, mark) for item in value]
        return value

    def pieces(self, text: str) -> list[str]:
        """`text` in pieces, none of which holds a special string."""
        ends = [match.end() for match in self._start.finditer(text)]
        return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def shared_length(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def unused_mark(value: Any) -> str:
    """A string that stands nowhere in `value`.

    Letters and digits only: they come through what templates do to text (trimming, JSON or HTML escapes) unchanged.
    """
    text, n = repr(value), 0
    while f"zqcut{n}qz" in text:
        n += 1
    return f"zqcut{n}qz"
