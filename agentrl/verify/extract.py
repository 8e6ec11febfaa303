"""Which part of a text is the answer.

What comes in: a whole response, or a gold solution. What goes out: the answer's text and how it was marked. Knows
nothing of what an answer may be.

A marked answer stands after the last `####`, in the last `\\boxed{...}`, or after the last "answer is" or "answer:";
`####` and boxes are stronger than words, and of the two the later one counts. A text without a mark is taken whole: the
last number of a text is never guessed, since that rewards numbers that were never given as the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 8000  # characters of one marked answer that are looked at; caps on answers are far lower
_PHRASE_REACH = 100_000  # characters from the end in which "answer is" is looked for
_PHRASE = re.compile(r"\banswer(?:\s+is|\s*=|:)(?:\s*:)?(?:\*\*)?", re.IGNORECASE)
_BOX = re.compile(r"\\f?boxed\s*\{|\\fbox\s*\{")
_HEADING = re.compile(r"\W*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\W*", re.IGNORECASE)
_MATH = re.compile(  # in a bracketed form no further opening sign is let in: else unclosed ones would cost their square
    r"\$\$([^$]+)\$\$|(?<!\\)\$([^$\n]+)(?<!\\)\$"
    r"|\\\(([^\\]*(?:\\[^()][^\\]*)*)\\\)|\\\[([^\\]*(?:\\[^\[\]][^\\]*)*)\\\]"
)


@dataclass(frozen=True, slots=True)
class Extract:
    text: str
    mark: str  # "####", "box", "phrase" or "whole"


def extract(text: str) -> Extract:
    """Cut the answer out of `text`. Never fails: an unmarked text is returned whole."""
    hashes = text.rfind("####")
    box = _last_box(text)
    if hashes > box[0]:
        return Extract(_after_hashes(text[hashes + 4 : hashes + 4 + LONGEST]), "####")
    if box[0] >= 0:
        return Extract(box[1], "box")
    if (phrase := _after_phrase(text)) is not None:
        return Extract(phrase, "phrase")
    return Extract(text[: LONGEST + 1].strip() if len(text) > LONGEST else text.strip(), "whole")


def single_math(text: str) -> str | None:
    """What stands between the math signs of `text`, if there is exactly one such place."""
    found = _MATH.findall(text)
    return next((part for part in found[0] if part), None) if len(found) == 1 else None


def _after_hashes(rest: str) -> str:
    """The line after the mark; the next one where the line is only the heading "Final answer"."""
    line, _, below = rest.lstrip("# \t").lstrip().partition("\n")
    if below.strip() and _HEADING.fullmatch(line):
        line = below.strip().partition("\n")[0]
    return line.strip()


def _after_phrase(text: str) -> str | None:
    ends = [match.end() for match in _PHRASE.finditer(text, max(0, len(text) - _PHRASE_REACH))]
    if not ends:
        return None
    rest = text[ends[-1] : ends[-1] + LONGEST].strip()
    if rest.startswith(("$$", "\\[")) and (inside := _MATH.match(rest)):
        return inside[0]
    return rest.partition("\n")[0].strip()


def _last_box(text: str) -> tuple[int, str]:
    """(where, content) of the last box that closes; (-1, "") if there is none."""
    end = len(text)
    for _ in range(5):
        start = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))
        if start < 0:
            break
        opened = _BOX.match(text, start)
        content = _to_closing(text, opened.end()) if opened else None
        if content is not None:
            return start, content.strip()
        end = start
    return -1, ""


def _to_closing(text: str, start: int) -> str | None:
    """From behind an opening brace to its closing one; None where it is not closed in time."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[start : start + LONGEST], re.DOTALL):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return text[start : start + match.start()]
    return None
