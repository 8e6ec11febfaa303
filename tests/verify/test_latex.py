"""LaTeX answers through math-verify: sets, intervals, matrices, equations; and where the verdict is not its own."""

from __future__ import annotations

import pytest

from agentrl.verify import GoldError, Verdict, Verifier

from .conftest import needs_math_verify

pytestmark = needs_math_verify

SAME = [
    ("\\frac{1}{2}+\\frac13", "\\frac56"), ("x^2+2x+1", "(x+1)^2"), ("\\sqrt{8}", "2\\sqrt2"), ("3\\pi", "\\pi\\cdot3"),
    ("\\pi", "pi"), ("\\{1,2,3\\}", "\\{3,2,1\\}"), ("\\{1,2\\}", "1, 2"), ("\\{1,2\\}", "1 \\text{ and } 2"),
    ("[1,2)", "[1, 2)"), ("[1,2)", "\\left[1,2\\right)"), ("(-\\infty,3]", "(-\\infty, 3]"), ("(1,2)", "(1,2)"),
    ("(1,2,3)", "\\left(1,2,3\\right)"), ("[0,1]\\cup[2,3]", "[2,3]\\cup[0,1]"), ("1 < x < 2", "x\\in(1,2)"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"),
    ("\\begin{pmatrix}\\frac12\\\\3\\end{pmatrix}", "\\begin{pmatrix}0.5\\\\3\\end{pmatrix}"),
    ("y=2x+1", "y = 1 + 2x"), ("x=\\frac{\\pi}{2}", "\\frac{\\pi}{2}"), ("24", "4!"), ("10", "\\binom{5}{2}"),
    ("8", "2^3"), ("3", "\\log_2 8"), ("1+i", "i+1"), ("\\infty", "+\\infty"), ("\\emptyset", "\\varnothing"),
    ("90^\\circ+x", "x+90^\\circ"), ("ab", "ba"), ("\\pm 3", "\\{3,-3\\}"), ("\\sin^2 x+\\cos^2 x", "1"),
    ("x \\ge 2", "2 \\le x"), ("12\\sqrt{3}\\text{ cm}^2", "12\\sqrt{3}"), ("5\\times10^{-3}x", "0.005x"),
    ("9.424778", "3\\pi"), ("24", "\\left(24\\right)"), ("2\\pi", "2π"), ("\\sqrt{2}", "√2"), ("0.5", "2^{-1}"),
]  # fmt: skip

OTHER = [
    ("\\frac{1}{2}+\\frac13", "\\frac57"), ("x^2+2x+1", "(x-1)^2"), ("\\{1,2,3\\}", "\\{1,2\\}"), ("[1,2)", "[1,2]"),
    ("(1,2)", "(2,1)"), ("(1,2,3)", "(3,2,1)"), ("[0,1]\\cup[2,3]", "[0,3]"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&5\\end{pmatrix}"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}"), ("y=2x+1", "y=2x-1"),
    ("x=5+\\pi", "y=5+\\pi"), ("24", "5!"), ("24", "24x"), ("24", "x"), ("24", "\\{24, 25\\}"), ("3\\pi", "9.42477"),
    ("x \\ge 2", "x > 2"), ("1+i", "1-i"), ("\\infty", "-\\infty"), ("24", "\\text{twenty} + 4"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_equal(warm: Verifier, gold: str, answer: str) -> None:
    found = warm.verify_sync(f"${gold}$", f"Thus we have \\boxed{{{answer}}}.")
    assert found.verdict is Verdict.CORRECT, found


@pytest.mark.parametrize(("gold", "answer"), OTHER)
def test_not_equal(warm: Verifier, gold: str, answer: str) -> None:
    found = warm.verify_sync(f"${gold}$", f"Thus we have \\boxed{{{answer}}}.")
    assert found.verdict is Verdict.WRONG, found


@pytest.mark.parametrize("gold", [gold for gold, _ in SAME])
def test_every_gold_answer_equals_itself(warm: Verifier, gold: str) -> None:
    assert warm.verify_sync(gold, f"#### ${gold}$").correct


@pytest.mark.parametrize("answer", ["\\frac{1}{", "x^", "((((x", "\\langle 1,2 \\rangle", "\\begin{pmatrix}1&2"])
def test_an_answer_that_is_no_mathematics_is_unparsable(warm: Verifier, answer: str) -> None:
    assert warm.verify_sync("x^2", f"#### {answer}").verdict is Verdict.UNPARSABLE


@pytest.mark.parametrize("gold", ["\\frac{1}{", "x^", "\\sqrt{"])
def test_a_gold_answer_that_is_no_mathematics_is_named(warm: Verifier, gold: str) -> None:
    for answer in (gold, "x"):
        with pytest.raises(GoldError, match="math-verify cannot parse it") as caught:
            warm.verify_sync(gold, answer)
        assert caught.value.gold == gold


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("x^2+1", "The result is $1+x^2$."), ("x^2+1", "The answer is \\(1+x^2\\)."), ("x^2+1", "1+x^2")],
)
def test_unmarked_mathematics_is_found_where_there_is_one_piece(warm: Verifier, gold: str, answer: str) -> None:
    assert warm.verify_sync(gold, answer).correct
