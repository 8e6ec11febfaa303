"""Which part of a text is the answer, what the rules judge, and what they leave to a worker."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.verify import GoldError, Judgement, Limits, Verdict, Verifier
from agentrl.verify.extract import extract
from agentrl.verify.limits import over
from agentrl.verify.rules import Undecided, judge, read_gold

LIMITS = Limits()


def verdict(gold: str, response: str) -> str:
    found = judge(read_gold(gold, LIMITS), response, LIMITS)
    return found.verdict.value if isinstance(found, Judgement) else "worker"


@pytest.mark.parametrize(
    ("text", "answer", "mark"),
    [
        ("so\n#### 24", "24", "####"),
        ("####24\nthat is all", "24", "####"),
        ("#### 3\n#### 24", "24", "####"),  # the last one counts
        ("#### Step 3: add\nso \\boxed{24}", "24", "box"),  # a heading, then the answer
        ("\\boxed{3}\n#### 24", "24", "####"),
        ("#### Final Answer:\n\n24", "24", "####"),
        ("\\boxed{3} or \\boxed{24}", "24", "box"),
        ("$\\boxed{\\frac{1}{\\sqrt{2}}}$.", "\\frac{1}{\\sqrt{2}}", "box"),
        ("\\fbox{24}", "24", "box"),
        ("\\boxed {24}", "24", "box"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}", "box"),
        ("\\boxed{24} and \\boxed{3", "24", "box"),  # one that does not close is none
        ("The answer is 3. No, the answer is 24.", "24.", "phrase"),
        ("**Answer:** 24", "24", "phrase"),
        ("Final answer = 24\nBye", "24", "phrase"),
        (" 24 ", "24", "whole"),
        ("", "", "whole"),
        ("####", "", "####"),
        ("\\boxed{}", "", "box"),
    ],
)
def test_the_answer_is_cut_out(text: str, answer: str, mark: str) -> None:
    found = extract(text)
    assert (found.text, found.mark) == (answer, mark)


@pytest.mark.parametrize(
    ("gold", "response", "wanted"),
    [
        ("#### 24", "so 2 and 3 give\n#### $24.00", "correct"),
        ("She has 3.\n#### 1,080", "#### 1080", "correct"),
        ("24", "She has 24 apples.", "correct"),
        ("24", "She has 3, then 24 apples.", "unparsable"),  # the last number of a text is no answer
        ("24", "#### 3 and 24 apples", "unparsable"),
        ("24", "#### 24 (or maybe 25)", "correct"),  # the first number is the one committed to
        ("24", "So we have $x=24$.", "correct"),
        ("24", "The answer is 24!", "correct"),
        ("120", "The answer is 5!", "worker"),
        ("24", "#### 24!", "worker"),  # a factorial
        ("24", "#### twenty-four", "unparsable"),
        ("24", "#### nan", "unparsable"),
        ("24", "I cannot say.", "unparsable"),
        ("24", "", "unparsable"),
        ("24", "#### ", "unparsable"),
        ("24", "!!!", "unparsable"),
        ("-3", "3", "wrong"),
        ("24", "\\boxed{x}", "worker"),
        ("24", "\\boxed{4!}", "worker"),
        ("x=5", "5", "correct"),
        ("x=5", "x = 5", "correct"),
        ("x=5", "\\boxed{y=5}", "worker"),
        ("\\text{Tuesday}", "\\text{Tuesday}", "correct"),
        ("Tuesday", "The answer is tuesday.", "correct"),
        ("Tuesday", "The answer is Tuesday, since Monday is over.", "correct"),
        ("Tuesday", "Monday", "wrong"),
        ("Tuesday", "It is Tuesday", "unparsable"),
        ("Tuesday", "It is Monday", "wrong"),
        ("New York", "#### new   york.", "correct"),
        ("\\text{2nd floor}", "\\boxed{\\text{2nd floor}}", "correct"),
        ("B", "\\boxed{(B)}", "correct"),
        ("\\text{(B)}", "\\boxed{\\text{B}}", "correct"),
        ("B", "\\boxed{C}", "wrong"),
        ("yes", "no", "wrong"),
        ("ab", "\\boxed{ba}", "worker"),  # as words they differ, as products they are equal
        ("x^2", "\\boxed{x^2}", "worker"),  # whether the gold answer can be parsed, only a worker knows
        ("(1,2)", "therefore we get (1,2)", "unparsable"),
    ],
)
def test_what_the_rules_judge(gold: str, response: str, wanted: str) -> None:
    assert verdict(gold, response) == wanted


@pytest.mark.parametrize(
    ("gold", "named"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("####", "empty"),
        ("\\boxed{}", "empty"),
        ("!!!", "neither a number nor words"),
        ("2^{1000000000}", "exponent 1000000000"),
        ("9" * 400, "400 digits"),
        ("5 hours 30 minutes", "more than one number"),
        ("She buys 3 apples and then 4 pears", "more than one number"),
    ],
)
def test_a_gold_answer_that_cannot_be_read_is_named(gold: str, named: str) -> None:
    with pytest.raises(GoldError, match=named) as caught:
        read_gold(gold, LIMITS)
    assert repr(gold[:70])[1:-1] in str(caught.value)


def test_a_gold_answer_that_is_no_text_is_named() -> None:
    with pytest.raises(GoldError, match="of type int, wanted text"):
        read_gold(24, LIMITS)  # type: ignore[arg-type]


def test_a_response_that_is_no_text_is_named() -> None:
    with pytest.raises(TypeError, match="must be text, got NoneType"):
        judge(read_gold("24", LIMITS), None, LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "cap"),
    [
        ("x" * 2001, "2001 characters"),
        ("1" * 301, "301 digits"),
        ("((" * 11, "22 nested brackets"),
        ("2^{100001}", "exponent 100001"),
        ("2**100001", "exponent 100001"),
        ("2^{-100001}", "exponent 100001"),
        ("1e100001", "exponent 100001"),
        ("2^{9^{9}}", "exponent 9^9"),
        ("2^{\\left(9^{9}\\right)}", "exponent 9^9"),
        ("9**(9**9)", "exponent 9^9"),
        ("2^{1^{999}}", None),
        ("2^{2^{16}}", None),
        ("2^{2^{17}}", "exponent 2^17"),
        ("2^{x^{17}}", None),
        ("(10^{9})!", "factorial of 10^9"),
        ("\\binom{10^{8}}{2}", "binomial coefficient of 10^8"),
        ("x^2^2^2^2", "tower of 4"),
        ("x^{y^{z^{2^{x}}}}", "tower of 4"),
        ("2^{2^{2^{2}}}", None),
        ("x^2+y^2+z^2+t^2+u^2", None),
        ("1001!", "factorial of 1001"),
        ("(1001)!", "factorial of 1001"),
        ("1000!", None),
        ("\\binom{1001}{2}", "binomial coefficient of 1001"),
        ("1," * 201, "201 separators"),
        ("\\int\\int\\int\\sum\\prod", "5 integrals"),
        ("\\infty\\infty\\infty\\infty\\infty", None),
    ],
)
def test_caps(text: str, cap: str | None) -> None:
    found = over(text, LIMITS)
    assert (found is None) if cap is None else (found is not None and cap in found)


def test_caps_can_be_set_and_the_cap_is_named() -> None:
    with Verifier(symbolic=False, limits=Limits(chars=10)) as verifier:
        assert verifier.verify_sync("24", "#### 24").correct
        found = verifier.verify_sync("24", "#### 24" + "0" * 10)
    assert (found.verdict, found.reason) == (Verdict.UNPARSABLE, "12 characters, over the cap of 10")


@given(
    st.text(max_size=200),
    st.sampled_from(["", "#### ", "\\boxed{", "answer is ", "$"]),
    st.sampled_from(["", "}", "$"]),
)
def test_any_response_is_judged_or_left_to_a_worker(text: str, before: str, behind: str) -> None:
    found = judge(read_gold("24", LIMITS), before + text + behind, LIMITS)
    assert isinstance(found, Undecided) or found.verdict is not Verdict.TIMEOUT


@given(st.text(max_size=60))
def test_any_gold_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(GoldError):
        assert read_gold(text, LIMITS).symbolic
