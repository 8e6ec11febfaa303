"""One way of writing for many: the same answer in other characters and other LaTeX.

What comes in: an answer, cut out of its text. What goes out: the answer in ASCII where it has one meaning there, with
single spaces, without emphasis, math signs and sizes. `2²` becomes `2^{2}`, never 22.
"""

from __future__ import annotations

import re
import unicodedata

_MINUS = dict.fromkeys(map(ord, "−–—‒―﹣－"), "-")
_SPACE = dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000], " ")
_NOTHING = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u200e\u200f"), "")
_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_FRACTIONS = {
    ord(sign): f" {top}/{bottom}"
    for signs, bottom, tops in (("½", 2, (1,)), ("⅓⅔", 3, (1, 2)), ("¼¾", 4, (1, 3)), ("⅕⅖⅗⅘", 5, (1, 2, 3, 4)),
                                ("⅙⅚", 6, (1, 5)), ("⅛⅜⅝⅞", 8, (1, 3, 5, 7)))
    for sign, top in zip(signs, tops, strict=True)
}  # fmt: skip
_SIGNS = {
    **dict.fromkeys(map(ord, "⁄∕÷"), "/"),
    **str.maketrans({"×": "\\times ", "·": "\\times ", "⋅": "\\times ", "’": "'", "°": "^{\\circ}", "±": "\\pm "}),
    **str.maketrans({"π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "∪": "\\cup ", "√": "\\sqrt "}),
    **str.maketrans({"∅": "\\emptyset ", "∈": "\\in "}),
}
_TABLE = {**_FULL_WIDTH, **_MINUS, **_SPACE, **_NOTHING, **_FRACTIONS, **_SIGNS}

_SPACING = re.compile(r"\\[,;:! ]|\\(?:quad|qquad|thinspace)(?![a-zA-Z])|~")
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])\.?")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_DEGREES = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![a-zA-Z]))(?=\s*[CF]?$)")
_EMPHASIS = re.compile(r"\*\*|__|`")
_WRAPPED = re.compile(r"\$\$(.*)\$\$|\$(?=.*\$)(.*)\$|\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)
_FONT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|bf|rm|operatorname)\s*\{([^{}\\$]*)\}")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_TRAILING = " \t\n.,;:"
_OUTSIDE = " \t\n,;:"


def in_ascii(text: str) -> str:
    """Digits of any script, dashes, spaces and full-width signs as ASCII ones."""
    if text.isascii():
        return text
    text = _SUPERSCRIPT.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text.translate(_TABLE))
    return "".join(str(unicodedata.decimal(c)) if c > "\x7f" and c.isdecimal() else c for c in text)


def plain(text: str) -> str:
    """LaTeX with one way of writing; fonts (`\\text{...}`) stay, since they tell words from products of letters."""
    text = _single_spaced(in_ascii(text))
    if "**" in text or "`" in text or "__" in text:
        text = _EMPHASIS.sub("", text) if not re.search(r"[0-9)]\s*\*\*\s*[0-9({-]", text) else text
    text = _trimmed(_unwrapped(_trimmed(text)))
    if "\\" in text or "{" in text or "~" in text:
        text = text.replace("{,}", ",").replace("\\!", "").replace("\\,", " ")
        text = _SIZES.sub("", _SPACING.sub(" ", text))
        text = _FRACTION.sub(r"\\frac", text).replace("\\varnothing", "\\emptyset")
        text = _trimmed(_whole_box(_single_spaced(text)))
        if text.endswith("\\"):
            text = text[:-1]
    return text


def without_fonts(text: str) -> str:
    """`24\\text{ cm}` as `24 cm`, `90^\\circ` as `90 degrees`."""
    for _ in range(3):
        if "\\" not in text:
            break
        text = _DEGREES.sub(" degrees", text)
        text = _single_spaced(_FONT.sub(r" \1 ", text))
    return text.replace("\\$", "$").replace("\\%", "%").replace("\\#", "#").lstrip("#").strip(_OUTSIDE)


def _trimmed(text: str) -> str:
    """Without punctuation around it; an exclamation mark behind a digit or a bracket is a factorial and stays."""
    text = text.rstrip(_TRAILING).lstrip(_OUTSIDE)
    while text.endswith(("!", "?")) and (len(text) == 1 or text[-2].isalpha() or text[-2] in " !?"):
        text = text[:-1].rstrip(_TRAILING)
    return text


def _single_spaced(text: str) -> str:
    """No empty lines and no two spaces together: patterns that look for spaces would cost their square."""
    if "\n" in text:
        return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))
    return " ".join(text.split())


def _unwrapped(text: str) -> str:
    """Without the math signs around all of it."""
    for _ in range(2):
        match = _WRAPPED.fullmatch(text)
        inside = next((part for part in match.groups() if part is not None), None) if match else None
        if inside is None or re.search(r"(?<!\\)\$|\\[()\[\]]", inside):
            break
        text = inside.strip()
    return text


def _whole_box(text: str) -> str:
    return text[7:-1].strip() if text.startswith("\\boxed{") and text.endswith("}") and text.count("{") == 1 else text
