"""Answers that are words: names, days, yes and no, letters of a choice.

What comes in: an answer, cut out of its text. What goes out: the words that two writings of it share, or None where it
is no plain words.
"""

from __future__ import annotations

import re

from agentrl.verify.plain import plain, without_fonts

_WORDS = re.compile(r"[^\W\d_]+(?:[ '’.-]+[^\W\d_]+)*")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mbox)\s*\{[^{}$]*\}")
_NAMES = frozenset(  # words that are mathematics when they stand alone
    ["pi", "e", "i", "infinity", "infty", "oo", "inf", "emptyset", "sin", "cos", "tan", "log", "ln", "sqrt"]
)


def words(text: str) -> str | None:
    """Casefolded words with single spaces, without fonts and brackets around; None for anything else."""
    text = plain(text)
    explicit = _TEXT.fullmatch(text) is not None
    text = without_fonts(text).strip("()[] .")
    folded = " ".join(text.casefold().split())
    if explicit and folded:
        return folded
    return folded if _WORDS.fullmatch(folded) and folded not in _NAMES else None


def anagrams(one: str, other: str) -> bool:
    """Whether two words hold the same letters: as products of symbols they would be equal."""
    return sorted(one.replace(" ", "")) == sorted(other.replace(" ", ""))
