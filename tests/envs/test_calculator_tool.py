"""The calculator tool: exact results, short text, bounded work, and an error text for everything else."""

from __future__ import annotations

import re
import time
import warnings
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentrl.env import Tool, ToolResult
from agentrl.tools.calculator import MAX_LENGTH, calculate, calculator, evaluate, format_number


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("48/2", "24"),
        ("16-3-4", "9"),
        ("37*46+12", "1714"),
        ("2+3*4", "14"),
        ("(2+3)*4", "20"),
        ("-(3-5)", "2"),
        ("-2**2", "-4"),
        ("7//2", "3"),
        ("-7//2", "-4"),
        ("7%3", "1"),
        ("-7 % 3", "2"),
        ("2**10", "1024"),
        ("2**-3", "0.125"),
        ("0.1+0.2", "0.3"),
        (".5*4.", "2"),
        ("05+007", "12"),
        ("1.005-1", "0.005"),
        ("10.00/4", "2.5"),
        ("-0.0", "0"),
        ("1e3+1", "1001"),
        ("1\n+\t2", "3"),
    ],
)
def test_arithmetic(expression: str, shown: str) -> None:
    assert calculate(expression) == shown


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("2x3", "6"),
        ("2 X 3", "6"),
        ("(1+1)x(2)", "4"),
        ("2×3÷4", "1.5"),
        ("5−8", "-3"),
        ("1,000*2", "2000"),
        ("$1,234,567.50 + $0.50", "1234568"),
        ("-$5", "-5"),
        ("20%*50", "10"),
        ("20% of 50", "10"),
        ("20%x50", "10"),
        ("100/20%", "500"),
        ("100-20%", "99.8"),
        ("12.5 %", "0.125"),
        ("17 % 5", "2"),
        ("17%(2+3)", "2"),
        ("17%.5", "0"),
    ],
)
def test_what_models_and_gsm8k_write(expression: str, shown: str) -> None:
    assert calculate(expression) == shown


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("1/3", "0.3333333333"),
        ("2/3", "0.6666666667"),
        ("100/3", "33.33333333"),
        ("123456789012.25", "123456789012.25"),
        ("123456789012.123456", "123456789012.1235"),
        ("1-10**-14", "1"),
        ("2**100", "1267650600228229401496703205376"),
        ("2**200", "1.606938044e60"),
        ("-1/10**20", "-1e-20"),
        ("1.005**360", "6.022575212"),
        ("16**0.5", "4"),
        ("2**0.5", "1.414213562"),
    ],
)
def test_numbers_are_shown_short(expression: str, shown: str) -> None:
    assert calculate(expression) == shown


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1/0", "division by zero"),
        ("1//0", "division by zero"),
        ("1%0", "division by zero"),
        ("0**-1", "division by zero"),
        ("0**-.5", "division by zero"),
        ("10**10**10", "too large"),
        ("9**9**9**9", "too large"),
        ("1e999999", "too large"),
        ("7.5**(10**9+.5)", "too large"),
        ("(9**2000)*(9**2000)", "too many digits"),
        ("(-8)**.5", "negative number"),
        ("9" * (MAX_LENGTH + 1), f"at most {MAX_LENGTH}"),
        ("-" * 300 + "1", "split the expression"),
        ("+".join("1" * 150), "split the expression"),
        ("(" * 150 + "1", "cannot read"),
        ("2(3)", "write \\* between"),
        ("2+", "cannot read"),
        ("1 2", "cannot read"),
        ("1.2.3", "cannot read"),
        ("e", "cannot read"),
        ("()", "cannot read"),
        ("...", "cannot read"),
        ("", "empty"),
        (" $ ", "empty"),
        ("48/2=24", "'=' is not arithmetic"),
        ("1,00", "',' is not arithmetic"),
        ("1,0000", "',' is not arithmetic"),
        ("1,000,00", "',' is not arithmetic"),
        ("0,500", "',' is not arithmetic"),
        ("2^3", "'\\^' is not arithmetic"),
        ("__import__('os')", "'_' is not arithmetic"),
        ("1\x001", "is not arithmetic"),
        ("٣+1", "'٣' is not arithmetic"),
        ("\ud800", "is not arithmetic"),
    ],
)
def test_the_error_says_why(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        calculate(expression)


_FRAGMENTS = st.sampled_from(
    [
        *"0123456789",
        *"+-*/%()eExX., $=^_",
        "//",
        "**",
        "10**",
        "9**9",
        "1e99",
        "×",
        "÷",
        "٣",
        "½",
        "\x00",
        "\n",
        "% of ",
    ]
)


def _attempt(expression: str) -> tuple[str, str]:
    """The result and no error, or the error and no result."""
    try:
        return calculate(expression), ""
    except ValueError as error:
        return "", str(error) or "an error without a text\n"


def _only_value_errors(expression: str) -> None:
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown, error = _attempt(expression)
        if error:
            assert error.isprintable()
        else:
            value = evaluate(expression)
            assert len(shown) <= 70
            assert abs(evaluate(shown) - value) <= abs(value) * Fraction(1, 10**9)
    assert time.process_time() - began < 1.0


@settings(max_examples=1000, deadline=None)
@given(st.lists(_FRAGMENTS, max_size=80).map("".join))
@example("(" * 5000)
@example("9" * 399 + "%")
@example("1" + "/3**999" * 50)
@example("1" + "+1/7**99" * 45)
def test_no_expression_raises_anything_else_or_takes_long(expression: str) -> None:
    _only_value_errors(expression)


@settings(max_examples=500, deadline=None)
@given(st.text())
def test_no_text_raises_anything_else(expression: str) -> None:
    _only_value_errors(expression)


@settings(deadline=None)
@given(st.fractions(min_value=-(10**12), max_value=10**12))
def test_shown_numbers_are_the_value_to_nine_digits(value: Fraction) -> None:
    assert abs(Fraction(format_number(value)) - value) <= abs(value) * Fraction(1, 10**9)


_NUMBERS = st.decimals(min_value=0, max_value=10**6, places=3).map(str)
_EXPRESSIONS = st.recursive(
    _NUMBERS, lambda inner: st.builds("({}{}{})".format, inner, st.sampled_from("+-*"), inner), max_leaves=8
)


@settings(deadline=None)
@given(_EXPRESSIONS)
def test_exact_like_a_slow_twin(expression: str) -> None:
    twin = eval(re.sub(r"[0-9.]+", lambda number: f"Fraction('{number[0]}')", expression))
    assert evaluate(expression) == twin


async def test_the_model_gets_a_result_or_an_error_text() -> None:
    tool = Tool.of(calculator)
    assert tool.schema["function"]["parameters"]["required"] == ["expression"]
    assert await tool.call({"expression": "48/2"}) == ToolResult("24")
    failed = await tool.call({"expression": "1/0"})
    assert failed.error == "exception"
    assert failed.content.startswith("Error:")
    assert failed.content.endswith("division by zero")
    assert (await tool.call({"expression": "1", "base": 2})).error == "bad_arguments"
