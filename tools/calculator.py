"""A calculator for agents: exact arithmetic on one expression, with bounded work.

What comes in: the text a model wrote, such as "48/2", "$1,000 x 20%" or "(3+4)**2". What goes out: the value as short
text, or a ValueError that says what to change. The text is parsed with `ast` and walked, never evaluated as Python.
Numbers are fractions, so 0.1+0.2 is 0.3; only a power with a fractional exponent goes through floating point.

How text is read, beyond Python's own arithmetic: "x", "×", "·" multiply and "÷" divides; "$" and thousands separators
are dropped; a "%" after a number is a percent sign (20% = 0.2, "20% of 50" = 10) unless a number or a parenthesis
follows, where it is the remainder (7 % 3 = 1). Knows nothing of environments.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction

from agentrl.env.tool import tool

MAX_LENGTH = 400  # characters of an expression
MAX_DEPTH = 100  # nested parentheses, signs in a row, or terms in a row
MAX_BITS = 6600  # of a numerator or denominator on the way: about 2000 digits
MAX_SHOWN_DIGITS = 50  # of a whole number that is shown in full
SIGNIFICANT_DIGITS = 10  # of a result that is not whole

_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "$": " "})
_TIMES = re.compile(r"(?<=[0-9)%. ])[xX](?=[0-9(.+ -])")
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_PERCENT_OF = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?% ?of ", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?%(?! ?[0-9.(])")
_LEADING_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")
_FOREIGN = re.compile(r"[^0-9+\-*/%().eE ]")

_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
    ast.Pow: lambda left, right: _power(left, right),
}


@tool
async def calculator(expression: str) -> str:
    """Evaluate arithmetic.

    Args:
        expression: Numbers, + - * / // % ** and parentheses.
    """
    return calculate(expression)


def calculate(expression: str) -> str:
    """The value of `expression` as the tool shows it.

    Raises:
        ValueError: the expression cannot be read, has no value, or is too large; the message is for the model.
    """
    return format_number(evaluate(expression))


def evaluate(expression: str) -> Fraction:
    """The exact value of `expression`.

    Raises:
        ValueError: as for `calculate`.
    """
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"the expression has {len(expression)} characters; at most {MAX_LENGTH} are taken")
    text = _in_python(expression)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"cannot read {expression.strip()[:60]!r} as arithmetic") from None
    return _value(tree.body, text, MAX_DEPTH)


def format_number(value: Fraction) -> str:
    """Whole numbers without a point; others as the shortest decimal of ten significant digits, or of four decimals."""
    digits = len(str(abs(int(value))))
    in_full = digits <= MAX_SHOWN_DIGITS
    if value.denominator == 1 and in_full:
        return str(value.numerator)
    precision = max(SIGNIFICANT_DIGITS, digits + 4) if in_full else SIGNIFICANT_DIGITS
    context = Context(prec=precision, rounding=ROUND_HALF_UP)
    shown = context.divide(Decimal(value.numerator), Decimal(value.denominator)).normalize(context)
    if -SIGNIFICANT_DIGITS <= shown.adjusted() <= MAX_SHOWN_DIGITS:
        return f"{shown:f}"
    return f"{shown:e}".replace("e+", "e")


def _in_python(expression: str) -> str:
    """The same expression in Python's spelling: ASCII, on one line, percent signs as divisions."""
    text = " ".join(expression.translate(_SIGNS).split())
    text = _TIMES.sub("*", text)
    text = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    text = _PERCENT_OF.sub(r"(\1/100)*", text)
    text = _PERCENT.sub(r"(\1/100)", text)
    text = _LEADING_ZEROS.sub("", text)
    if not text:
        raise ValueError("the expression is empty")
    if foreign := _FOREIGN.search(text):
        raise ValueError(f"{foreign[0]!r} is not arithmetic; write numbers, + - * / // % ** and parentheses only")
    return text


def _value(node: ast.expr, text: str, depth: int) -> Fraction:
    if depth == 0:
        raise ValueError(f"more than {MAX_DEPTH} parentheses or terms; split the expression")
    match node:
        case ast.Constant(value=int() | float()):
            return _literal(text[node.col_offset : node.end_col_offset])
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _value(operand, text, depth - 1)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            operands = _value(left, text, depth - 1), _value(right, text, depth - 1)
            try:
                return _bounded(_BINARY[type(op)](*operands))
            except ZeroDivisionError:
                raise ValueError("division by zero") from None
        case ast.Call():
            raise ValueError("write * between a number and a parenthesis")
    raise ValueError(f"cannot read {text[:60]!r} as arithmetic")


def _literal(digits: str) -> Fraction:
    exponent = digits.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > MAX_BITS // 3:  # 10**n has more than 3 n bits
        raise ValueError("the number is too large or too small")
    return Fraction(digits)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """Exact for a whole exponent, otherwise in floating point."""
    if exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length()) - 1
        if bits * abs(exponent.numerator) > MAX_BITS:
            raise ValueError("the power is too large")
        return Fraction(base**exponent.numerator)
    if base < 0:
        raise ValueError("a negative number has no real power with a fractional exponent")
    try:
        return Fraction(repr(float(base) ** float(exponent)))
    except OverflowError:
        raise ValueError("the power is too large") from None


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ValueError("the number has too many digits")
    return value
