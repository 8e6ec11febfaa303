"""Numbers: what is read, what is refused, and which are equal."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.verify.quantity import NoNumber, Quantity, equal, quantity

READ = {
    "24": "24", " 24. ": "24", "+5": "5", "-5": "-5", "−5": "-5", "- 5": "-5", "007": "7", "-0": "0", ".5": "1/2",
    "5.": "5",
    "0.50": "1/2", "1,234": "1234", "1,234,567.89": "123456789/100", "12,34,567": "1234567", "1 234": "1234",
    "1'234": "1234", "1\u202f234": "1234", "1{,}234": "1234", "1\\,234": "1234", "1e3": "1000", "2.5E-2": "1/40",
    "5 \\times 10^{3}": "5000", "5*10^3": "5000", "5 × 10³": "5000", "3/4": "3/4", "-3/4": "-3/4", "24 / 7": "24/7",
    "2 1/2": "5/2", "2½": "5/2", "½": "1/2", "\\frac34": "3/4", "\\dfrac{3}{4}": "3/4",
    "-\\frac{1}{2}": "-1/2", "2\\frac{1}{2}": "5/2", "\\frac{1,000}{3}": "1000/3", "$24": "24", "\\$24.00": "24",
    "$ 24": "24", "-$5": "-5", "$-5": "-5", "€24": "24", "24 €": "24", "US$24": "24", "USD 24": "24", "24 USD": "24",
    "Rs. 24": "24", "24 apples": "24", "24\\text{ cm}": "24", "24~\\mathrm{km/h}": "24", "24 m": "24", "24 m^2": "24",
    "24 cm³": "24", "24-inch": "24", "24 miles per hour": "24", "$24/hour": "24", "24^\\circ": "24", "24°": "24",
    "24 years old!": "24", "24 (twenty-four)": "24", "24 because 12*2 = 24": "24",
    "24. I used 12*2.": "24", "24 million": "24000000",
    "$3.5 million": "3500000", "$5M": "5000000", "$5k": "5000", "x = 24": "24", "12 * 2 = 24": "24",
    "Total cost = $24": "24", "**24**": "24", "$24$": "24", "$$24$$": "24", "\\(24\\)": "24", "\\[24\\]": "24",
    "\\boxed{24}": "24", "#24": "24", "２４": "24", "１，２３４": "1234", "१२": "12", "١٢": "12",
    "the total is 24": "24",
    "\\left(24\\right)": None, "24x": None, "24 x": None, "24!": None, "5^2": None, "2²": None, "24-3": None,
    "3-1/2": None,
    "24+3": None, "3:2": None, "1.2.3": None, "3,14": None, "1,23": None, "1,2": None, "(1,2)": None, "\\pi": None,
    "3\\pi": None, "2x + 1 = 5": None, "a = 3, b = 4": None, "1/0": None, "\\frac{1}{0}": None, "1e999": None,
    "9" * 301: None, "nan": None, "inf": None, "": None, "-": None, "$": None, "24,x": None, "1/2/3": None,
}  # fmt: skip

REFUSED = [
    "between 24 and 30", "3 and 4 apples", "5 hours 30 minutes", "5 feet, 4 inches", "24 per 100 grams", "less than 24",
    "at least 24", "minus 24", "not 24", "twice 24", "24 squared", "24 or more", "24 and a half", "24 hundredths",
    "square root of 24", "isn't 24",
]  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_numbers_are_read_exactly(text: str) -> None:
    got, wanted = quantity(text), READ[text]
    assert isinstance(got, Quantity) is (wanted is not None), got
    if wanted is not None:
        assert isinstance(got, Quantity)
        assert got.value == Fraction(wanted)


@pytest.mark.parametrize(
    "text",
    ["x+24", "y-24", "x - 24", "sum + 24", "a -24", "y=x+24", "f(x)+24", "f(24)", "x24", "CO2", "x, 24", "a; 24"],
)
def test_letters_that_are_joined_to_a_number_are_left_to_mathematics(text: str) -> None:
    assert quantity(text) is None


@pytest.mark.parametrize("text", REFUSED)
def test_words_that_change_a_number_and_second_numbers_are_refused(text: str) -> None:
    assert isinstance(quantity(text), NoNumber)


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("24", "24.000", True),
        ("24", "24.0001", False),
        ("0.1", "1/10", True),
        ("1/3", "2/6", True),
        ("1/3", "0.333333", True),  # six places of what has no finite form
        ("1/3", "0.33333333", True),
        ("1/3", "0.33333", False),
        ("0.333333", "1/3", True),
        ("1/4", "0.2500001", False),  # a quarter has a finite form
        ("24", "24.0000001", False),
        ("0.0000001", "0.0000002", False),
        ("0.1", "0.10000000000000000555", False),  # what a float would make of it
        ("9007199254740993", "9007199254740992", False),
        ("1e3", "1000", True),
        ("50%", "50", True),
        ("50", "50%", True),
        ("0.5", "50%", True),
        ("50%", "0.5", True),
        ("50%", "50%", True),
        ("50%", "5%", False),
        ("12.5%", "12.5", True),
        ("0.5", "0.5%", True),
        ("50%", "500", False),
        ("7", "7 dozen", True),
        ("84", "7 dozen", True),
        ("8", "7 dozen", False),
        ("24", "24 thousand", False),
        ("24000", "24 thousand", True),
    ],
)
def test_which_numbers_are_equal(gold: str, answer: str, same: bool) -> None:
    one, other = quantity(gold), quantity(answer)
    assert isinstance(one, Quantity)
    assert isinstance(other, Quantity)
    assert equal(one, other) is same


@given(st.fractions(max_denominator=10**9))
def test_a_fraction_is_read_as_itself(value: Fraction) -> None:
    for text in (f"{value.numerator}/{value.denominator}", f"\\frac{{{value.numerator}}}{{{value.denominator}}}"):
        got = quantity(text)
        assert isinstance(got, Quantity)
        assert got.value == value


@given(
    st.integers(-(10**40), 10**40),
    st.integers(0, 30),
    st.sampled_from(["", "$", "€"]),
    st.sampled_from(["", " apples", "%"]),
)
def test_a_decimal_is_read_as_itself(digits: int, places: int, before: str, behind: str) -> None:
    value = Fraction(digits, 10**places)
    whole, rest = divmod(abs(digits), 10**places)
    text = f"{'-' if digits < 0 else ''}{before}{whole:,}" + (f".{rest:0{places}d}" if places else "") + behind
    got = quantity(text)
    assert isinstance(got, Quantity)
    assert (got.value, got.decimals) == (value, places)


@given(st.text(max_size=60))
def test_any_text_gives_an_answer(text: str) -> None:
    assert quantity(text) is None or isinstance(quantity(text), Quantity | NoNumber)
