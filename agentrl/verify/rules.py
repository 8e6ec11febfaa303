"""What can be judged without a computer algebra system: exactly, in this process, in microseconds.

What comes in: a gold answer and a response. What goes out: a judgement, or what a worker has to look at. Knows the
caps, numbers and words; knows no processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from agentrl.verify.extract import Extract, extract, single_math
from agentrl.verify.limits import Limits, over
from agentrl.verify.plain import plain
from agentrl.verify.quantity import NoNumber, Quantity, equal, quantity
from agentrl.verify.verdict import GoldError, Judgement, Verdict
from agentrl.verify.words import anagrams, words

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LONG_WORD = re.compile(r"[a-zA-Z]{3,}")
_FUNCTIONS = frozenset(["sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "min", "max", "gcd", "lcm"])
_JOINING = frozenset(["arcsin", "arccos", "arctan", "det", "mod", "and"])
_MATHS = re.compile(r"[0-9a-zA-Z\\]")
_BARE_NAMES = re.compile(r"(?<![a-zA-Z\\])(pi|infty)(?![a-zA-Z])")
MARKS = "nothing is marked as the answer (####, \\boxed{} or 'answer is')"


@dataclass(frozen=True, slots=True)
class Gold:
    """A gold answer, read. `symbolic` is for a worker; of the other two at most one is set."""

    symbolic: str
    number: Quantity | None
    words: str | None


@dataclass(frozen=True, slots=True)
class Undecided:
    """What a worker has to compare: LaTeX of the gold answer and of the answer, without math signs or boxes."""

    gold: str
    answer: str
    shown: str  # the answer as it was written


@lru_cache(maxsize=4096)
def read_gold(gold: str, limits: Limits) -> Gold:
    """Read a gold answer: a bare one, or a solution that marks it.

    Raises:
        GoldError: It is empty or over a cap. What only a worker can read is judged there.
    """
    if not isinstance(gold, str):
        raise GoldError(repr(gold), f"it is of type {type(gold).__name__}, wanted text")
    found = extract(gold)
    if not found.text:
        raise GoldError(gold, "it is empty")
    if fault := over(found.text, limits):
        raise GoldError(gold, fault)
    text, number = found.text, _number(found)
    if isinstance(number, Quantity):
        return Gold(symbolic_form(text), number, None)
    if (spoken := words(text)) is not None:
        return Gold(symbolic_form(text), None, spoken)
    if (inside := single_math(text)) is not None and inside != text:
        text = inside
    if isinstance(number, NoNumber):
        raise GoldError(gold, number.why)
    if not _MATHS.search(text) or _is_prose(plain(text)):
        raise GoldError(gold, "it is neither a number nor words nor mathematics")
    return Gold(symbolic_form(text), None, None)


def judge(gold: Gold, response: str, limits: Limits) -> Judgement | Undecided:
    """Judge `response` by the rules, as far as they go.

    Raises:
        TypeError: The response is no text.
    """
    if not isinstance(response, str):
        raise TypeError(f"a response must be text, got {type(response).__name__}: {response!r:.80}")
    found = extract(response)
    text = found.text
    if not text:
        return Judgement(Verdict.UNPARSABLE, "the answer is empty", None)
    if fault := over(text, limits):
        return Judgement(Verdict.UNPARSABLE, fault, text[: limits.chars])
    read = _number(found)
    if gold.number is not None:
        judged = _by_number(gold, gold.number, found, read)
    elif gold.words is not None:
        judged = _by_words(gold.words, found)
    else:
        judged = None
    return judged or _for_worker(gold, found, read)


def _by_number(gold: Gold, wanted: Quantity, found: Extract, read: Quantity | NoNumber | None) -> Judgement | None:
    text = found.text
    if isinstance(read, Quantity):
        return None if _other_name(gold, text) else _verdict(equal(wanted, read), "the numbers", text)
    if found.mark == "phrase" and text.endswith("!"):
        exclaimed = quantity(text.rstrip("! "))  # "The answer is 24!" is 24, and may still be the factorial
        if isinstance(exclaimed, Quantity) and equal(wanted, exclaimed):
            return _verdict(True, "the numbers", text)
    if read is None and len(words(text) or "") > 1:
        return Judgement(Verdict.UNPARSABLE, "words where a number is wanted", text)
    return None


def _by_words(wanted: str, found: Extract) -> Judgement | None:
    spoken, text = words(found.text), found.text
    if spoken == wanted:
        return _verdict(True, "the words", text)
    if found.mark != "whole" and words(re.split(r"[.,;(\n]", text, maxsplit=1)[0]) == wanted:
        return _verdict(True, "the words", text)  # and goes on in a new sentence or bracket
    if spoken is None or anagrams(wanted, spoken):
        return None
    if found.mark == "whole" and f" {wanted} " in f" {spoken} ":
        return Judgement(Verdict.UNPARSABLE, MARKS, text)
    return _verdict(False, "the words", text)


def _for_worker(gold: Gold, found: Extract, read: Quantity | NoNumber | None) -> Judgement | Undecided:
    text = found.text
    if (inside := single_math(text)) is not None:
        if gold.number is not None and isinstance(number := quantity(inside), Quantity):
            return _verdict(equal(gold.number, number), "the numbers", inside)
        return Undecided(gold.symbolic, symbolic_form(inside), inside)
    if isinstance(read, NoNumber) and gold.words is None:
        return Judgement(Verdict.UNPARSABLE, read.why, text)
    if not _MATHS.search(text):
        return Judgement(Verdict.UNPARSABLE, "it holds neither digits nor letters", text)
    if _is_prose(plain(text), 1 if found.mark == "whole" else 2):
        why = MARKS if found.mark == "whole" else "words around more than one number, or around none"
        return Judgement(Verdict.UNPARSABLE, why, text)
    return Undecided(gold.symbolic, symbolic_form(text), text)


def symbolic_form(text: str) -> str:
    """The LaTeX that a worker parses."""
    return _BARE_NAMES.sub(r"\\\1 ", plain(text))


def _number(found: Extract) -> Quantity | NoNumber | None:
    return quantity(found.text, marked=found.mark != "whole")


def _verdict(same: bool, what: str, text: str) -> Judgement:
    if same:
        return Judgement(Verdict.CORRECT, f"{what} are equal", text)
    return Judgement(Verdict.WRONG, f"{what} differ", text)


def _other_name(gold: Gold, text: str) -> bool:
    """Whether the one says `x = ...` and the other `y = ...`."""
    names = [left.strip() for left, sign, _ in (gold.symbolic.partition("="), plain(text).partition("=")) if sign]
    return len(names) == 2 and names[0] != names[1]


def _is_prose(text: str, least: int = 2) -> bool:
    """So many words of three letters that are neither commands nor functions, outside of fonts."""
    bare = _COMMAND.sub(" ", re.sub(r"\\(?:text|mathrm|operatorname|mbox|begin|end)\s*\{[^{}]*\}", " ", text))
    return sum(word.lower() not in _FUNCTIONS | _JOINING for word in _LONG_WORD.findall(bare)) >= least
