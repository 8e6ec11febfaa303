"""What is not even tried: texts whose parsing or evaluation would cost more than an answer is worth.

What comes in: an answer, cut out of its text. What goes out: None, or which cap it is over. Every pattern is linear in
the length of the text. The caps keep the worker processes free; what slips through is ended at its deadline.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

_DIGITS = re.compile(r"[0-9]+")
_BRACKETS = re.compile(r"[(\[{)\]}]")
_OPEN, _CLOSE = r"(?:\\left|[\s{(+-])*", r"(?:\\right|[\s)}\]])*"
_LITERAL = rf"([0-9]+)(?:{_CLOSE}(?:\^|\*\*){_OPEN}([0-9]+))?"  # a number, or a power of two numbers
_EXPONENT = re.compile(rf"(?:\^|\*\*){_OPEN}(?={_LITERAL})")
_SCIENTIFIC = re.compile(r"(?<=[0-9.])[eE](?=[+-]?([0-9]+))()")
_FACTORIAL = re.compile(rf"(?<![0-9]){_LITERAL}{_CLOSE}!")
_BINOMIAL = re.compile(rf"\\[dt]?binom{_OPEN}{_LITERAL}")
_SCRIPT = re.compile(r"\^|\*\*")
_OPERAND = re.compile(r"[\s{(]*(?:[0-9.]+|\\?[a-zA-Z]+)?\s*(?:\^|\*\*)")
_COMMANDS = re.compile(r"\\(?:int|sum|prod|lim)(?![a-z])")


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on one answer, checked before it is parsed."""

    chars: int = 2000
    digits: int = 300  # in one number
    nesting: int = 20  # brackets
    exponent: int = 100_000  # an exponent that is a number or a power of numbers
    tower: int = 3  # powers of powers: 2^{3^{4}} is a tower of 2
    factorial: int = 1000  # a number or a power of numbers under a factorial or at the top of a binomial coefficient
    commas: int = 200  # elements of sets and lists, entries of matrices
    integrals: int = 4  # integrals, sums, products, limits


def over(text: str, limits: Limits) -> str | None:
    """Which cap `text` is over, as a phrase, or None."""
    if len(text) > limits.chars:
        return f"{len(text)} characters, over the cap of {limits.chars}"
    if (longest := max(map(len, _DIGITS.findall(text)), default=0)) > limits.digits:
        return f"a number of {longest} digits, over the cap of {limits.digits}"
    if (elements := text.count(",") + text.count("&")) > limits.commas:
        return f"{elements} separators, over the cap of {limits.commas}"
    if (depth := _depth(text)) > limits.nesting:
        return f"{depth} nested brackets, over the cap of {limits.nesting}"
    for pattern, cap, what in (
        (_EXPONENT, limits.exponent, "exponent"),
        (_SCIENTIFIC, limits.exponent, "exponent"),
        (_FACTORIAL, limits.factorial, "factorial of"),
        (_BINOMIAL, limits.factorial, "binomial coefficient of"),
    ):
        for match in pattern.finditer(text):
            if _larger(match[1], match[2], cap):
                shown = f"{match[1]}^{match[2]}" if match[2] else match[1]
                return f"{what} {shown}, over the cap of {cap}"
    if (tower := _tower(text)) > limits.tower:
        return f"a tower of {tower} powers, over the cap of {limits.tower}"
    if (hard := len(_COMMANDS.findall(text))) > limits.integrals:
        return f"{hard} integrals, sums, products and limits, over the cap of {limits.integrals}"
    return None


def _larger(base: str, exponent: str | None, cap: int) -> bool:
    """Whether a number, or a power of two numbers, is larger than `cap`; without computing a large one."""
    if not exponent or int(base) < 2:
        return int(base) > cap
    return int(exponent) > cap.bit_length() or int(base) ** int(exponent) > cap


def _depth(text: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest


def _tower(text: str) -> int:
    """Powers directly above one another: a chain of ^ with nothing but brackets and one operand between two."""
    places = [match.end() for match in _SCRIPT.finditer(text)]
    tallest = height = min(len(places), 1)
    for below, above in pairwise(places):
        height = height + 1 if _OPERAND.fullmatch(text, below, above) else 1
        tallest = max(tallest, height)
    return tallest
