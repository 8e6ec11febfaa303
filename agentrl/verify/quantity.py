"""Answers that are one number, read exactly.

What comes in: an answer, cut out of its text. What goes out: a `Quantity` (a fraction, and how it was written), the
reason why it holds no single number, or None where it may be mathematics of another kind. No float is ever made.

Read are integers, decimals, fractions, mixed numbers and powers of ten, with thousands separators, currency, percent,
a unit behind and words around; docs/verify.md has the list. Words that change the number ("less than", "squared") and
second numbers are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from agentrl.verify.plain import plain, without_fonts

ROUNDING = 6  # places to which 1/3 and 0.333333 are compared
_MOST_DIGITS = 300
_MOST_EXPONENT = 300

_NUMBER = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?![0-9])"
    r"|[0-9]{1,3}(?:[ '][0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
)
_CURRENCY = r"(?:(?:US|CA|AU|NZ|HK|[CAS])?\\?\$|[€£¥₹₽₩₫₺₪฿₦₱]|(?:USD|EUR|GBP|INR|JPY|CNY|RMB|CAD|AUD)\b|Rs\.?)"
_SCIENTIFIC = (
    r"(?:[eE](?P<e>[+-]?[0-9]+)|\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?\s*(?P<ten>[+-]?[0-9]+)\s*\}?)"
)
_ARGUMENT = r"\s*(?:\{\s*(?P<%s>-?[0-9.,]+)\s*\}|(?P<%s>[0-9]))"
_FRAC = r"(?:(?P<whole>[0-9]+)\s*)?\\frac" + _ARGUMENT % ("top", "top1") + _ARGUMENT % ("bottom", "bottom1")
_SLASHED = (
    r"(?:(?P<mixed>[0-9]+)\s+)?"
    r"(?P<over>[0-9][0-9,]*(?:\.[0-9]+)?)\s*/\s*(?P<under>-?[0-9][0-9,]*(?:\.[0-9]+)?)"
)
_HEAD = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<money>{_CURRENCY})?\s*(?P<sign2>[+-]?)\s*"
    rf"(?:{_FRAC}|{_SLASHED}|(?P<number>{_NUMBER}){_SCIENTIFIC}?)",
)
# What may stand left of an equals sign: a name, or a calculation.
_NAMED = re.compile(r"[a-zA-Z' ]*(?:=\s*)?|[a-zA-Z' ]*[0-9 .+*/()$%^-]*(?:=[0-9 .+*/()$%^-]*)*")
_START = re.compile(rf"[+-]?\s*{_CURRENCY}?\s*[+-]?\s*(?:\.?[0-9]|[0-9]*\\frac)")
_PERCENT = re.compile(r"\s*(?:%|percent(?:age)?(?: points?)?\b|pct\b|per cent\b)", re.IGNORECASE)
_SCALES = {"thousand": 3, "k": 3, "million": 6, "mn": 6, "billion": 9, "bn": 9, "trillion": 12, "hundred": 2}
_SCALE = re.compile(r"\s*-?\s*(thousands?|(?:m|b|tr)illions?|hundreds?|mn|bn|k)(?![a-zA-Z])", re.IGNORECASE)
_MONEY_SCALE = re.compile(r"\s*([mMbB])(?![a-zA-Z])")
_DOZEN = re.compile(r"\s*-?\s*dozens?\b", re.IGNORECASE)

# What may stand behind a number without changing it: words, and units with their small powers.
_UNIT = re.compile(
    r"(?:(?<=[a-zA-Z])\^\{?[23]\}?|(?<=[a-zA-Z])[23](?![0-9])"
    r"|[^0-9+=<>*^\\|_{}\[\]~-]|(?<=[a-zA-Z])-(?=[a-zA-Z])|(?<=[0-9])-(?=[a-zA-Z]{2})|(?<=[a-zA-Z.,])\s-+\s(?=[a-zA-Z]))*",
)
_NOT_A_UNIT = re.compile(r"[!:(|]|\s[/(]|/(?!\s?[a-zA-Z])|,(?!\s[a-zA-Z])")
_LETTER_UNITS = frozenset("mgshlLcCFNJWVAKtd")
_CHANGED_BEHIND = re.compile(
    r"\b(?:squared|cubed|factorial|half|halves|tenths?|hundredths?|thousandths?|thirds|fifths?|eighths?|or|plus|minus"
    r"|times\s+[a-z0-9]|to the|pi|sqrt|log|ln|sin|cos|tan|mod)\b",
    re.IGNORECASE,
)
_CHANGED_BEFORE = re.compile(
    r"\b(?:not|never|no|minus|negative|less|fewer|more|than|least|most|over|under|below|above|between|up to|almost"
    r"|nearly|half|twice|double|triple|thrice|isn|wasn|square|cube|root|log|ln|sqrt|sin|cos|tan|pi|infinity|point"
    r"|base|to the)\b|n't",
    re.IGNORECASE,
)
_WORDS_BEFORE = re.compile(r"[a-zA-Z][^0-9+*^\\<>|{}\[\]_/]*?(?=[+-]?\s*(?:US)?[$€£¥₹]?\s*[+-]?\.?[0-9])")
_JOINED = re.compile(r"[a-zA-Z]\(?$")
_LISTED = re.compile(r"\(?\s*[a-zA-Z]\s*[,;]")
_SENTENCE_END = re.compile(
    r"(?:(?<=[0-9a-zA-Z%)\]}$])[.?]|(?<=[a-zA-Z])!)[.!?]*(?=\s\D|\s?$)|\s\((?=[^()]*\))|,?\s(?:because|since|which)\b|\n"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number as it was written.

    Attributes:
        value: The number, with neither percent sign nor dozen applied.
        factor: What the sign behind it would make of it: 1/100 for percent, 12 for a dozen, else 1.
        decimals: Places shown behind the point; None for a fraction.
    """

    value: Fraction
    factor: Fraction
    decimals: int | None


@dataclass(frozen=True, slots=True)
class NoNumber:
    """Words around a number, or several numbers, that give no single one."""

    why: str


def quantity(text: str, *, marked: bool = True) -> Quantity | NoNumber | None:
    """Read one number.

    Args:
        text: The answer; at most some thousand characters.
        marked: Whether it was marked as the answer. Behind a marked one a new sentence may hold other numbers.

    Returns:
        The number; or why words and numbers give no single one; or None where there is no number at the beginning or
        what follows it may be mathematics.
    """
    text = without_fonts(plain(text))
    text = _behind_equals(text)
    head = _HEAD.match(text)
    if head is None:
        before = _WORDS_BEFORE.match(text)
        if before is None:
            return None
        if changed := _CHANGED_BEFORE.search(before[0]):
            return NoNumber(f"{changed[0]!r} before the number")
        text = text[before.end() :]
        if _is_formula(before[0], text):
            return None
        head = _HEAD.match(text)
        if head is None:
            return None
    return _with_tail(head, marked)


def equal(gold: Quantity, answer: Quantity) -> bool:
    """Whether two numbers are the same answer.

    Equal values are equal, however written. A fraction without a finite decimal form also equals a decimal of at least
    six places when both round to the same six. A percent sign or "dozen" on one side alone counts as a unit or as a
    factor: 50% equals 50 and 0.5.
    """
    if gold.factor == answer.factor:
        return _same(gold, gold.value, answer, answer.value)
    pairs = [(Fraction(1), Fraction(1)), (gold.factor, answer.factor)]
    return any(_same(gold, gold.value * g, answer, answer.value * a) for g, a in pairs)


def _same(gold: Quantity, g: Fraction, answer: Quantity, a: Fraction) -> bool:
    if g == a:
        return True
    if (gold.decimals is None) == (answer.decimals is None):
        return False
    fraction, decimals = (g, answer.decimals) if gold.decimals is None else (a, gold.decimals)
    return (decimals or 0) >= ROUNDING and not _finite(fraction) and round(g, ROUNDING) == round(a, ROUNDING)


def _finite(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _is_formula(words: str, rest: str) -> bool:
    """Whether letters and the number behind them are joined or a list: `x+24`, `x - 24`, `f(24)`, `CO2`, `x, 24`."""
    if _LISTED.match(words):
        return True
    words, rest = words + " " * rest.startswith(" "), rest.lstrip()
    if rest[0] in "+-":
        return not words.endswith((" ", ":")) or rest[1] == " " or len(words.split()[-1]) == 1
    return rest[0] in ".0123456789" and _JOINED.search(words) is not None


def _behind_equals(text: str) -> str:
    """`x = 24`, `Total = 24` and `12 * 2 = 24` as `24`; an equation such as `2x + 1 = 5` stays what it is."""
    left, sign, right = text.rpartition("=")
    right = right.strip()
    return right if sign and _START.match(right) and _NAMED.fullmatch(left) else text


def _with_tail(head: re.Match[str], marked: bool) -> Quantity | NoNumber | None:
    read = _value(head)
    if read is None:
        return None
    value, decimals = read
    text, end, factor = head.string, head.end(), Fraction(1)
    if sign := _PERCENT.match(text, end):
        factor = Fraction(1, 100)
    elif sign := _DOZEN.match(text, end):
        factor = Fraction(12)
    elif sign := _SCALE.match(text, end):
        value *= 10 ** _SCALES[sign[1].lower().rstrip("s")]
    elif head["money"] and (sign := _MONEY_SCALE.match(text, end)):
        value *= 10 ** (6 if sign[1] in "mM" else 9)
    fault = _tail_fault(text, sign.end() if sign else end, marked)
    return Quantity(value, factor, decimals) if fault == "" else NoNumber(fault) if fault else None


def _tail_fault(text: str, start: int, marked: bool) -> str | None:
    """What is wrong with what stands behind the number: "" for nothing, None where it may be mathematics."""
    if start == len(text):
        return ""
    stop = len(text)
    if end := _SENTENCE_END.search(text, start):
        stop = end.start()
        if not marked and any(c.isdigit() for c in text[end.end() :]):
            return "several numbers, and none is marked as the answer (####, \\boxed{} or 'answer is')"
    tail = text[start:stop]
    unit = _UNIT.match(text, start, stop)
    if unit is None or unit.end() < stop:
        words = re.search(r"(?!and\b)\b[a-zA-Z]{3}", re.sub(r"\\[a-zA-Z]+", "", tail))
        return "more than one number" if words and not re.search(r"[\\^=<>]", tail) else None
    word = tail.strip()
    if len(word) == 1 and word.isalpha() and word not in _LETTER_UNITS:
        return None
    if _NOT_A_UNIT.match(tail):
        return None
    if changed := _CHANGED_BEHIND.search(tail):
        return f"{changed[0]!r} behind the number"
    return ""


def _value(head: re.Match[str]) -> tuple[Fraction, int | None] | None:
    """(value, decimals shown or None for a fraction); None where it is over a cap or divides by zero."""
    if len(head[0]) > _MOST_DIGITS:
        return None
    if head["sign"] and head["sign2"]:
        return None
    sign = -1 if "-" in (head["sign"], head["sign2"]) else 1
    if head["number"] is not None:
        value, decimals = _number(head["number"])
        exponent = int(head["e"] or head["ten"] or 0)
        if abs(exponent) > _MOST_EXPONENT:
            return None
        return sign * value * Fraction(10) ** exponent, max(0, decimals - exponent)
    if head["under"] is not None:
        whole, top, bottom = head["mixed"], head["over"], head["under"]
    else:
        whole, top, bottom = head["whole"], head["top"] or head["top1"], head["bottom"] or head["bottom1"]
    if not all(re.fullmatch(rf"-?(?:{_NUMBER})", part) for part in (top, bottom)):
        return None
    (upper, _), (lower, _) = _number(top), _number(bottom)
    if lower == 0 or (whole and (upper < 0 or lower < 0)):
        return None
    return sign * (int(whole or 0) + upper / lower), None


def _number(text: str) -> tuple[Fraction, int]:
    digits = re.sub(r"[ ,']", "", text)
    return Fraction(digits.rstrip(".")), len(digits.partition(".")[2])
