"""Comparison of printed text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.sandbox.grading import CodeTask, Output, TextCase, TextTask

EXACT, LINES, TOKENS = Output("exact"), Output("lines"), Output("tokens")
NEAR = Output("tokens", tolerance=1e-6)
TEXT = st.text(st.sampled_from("01.e \n\t\r\u00a0a"), max_size=12)


@given(TEXT)
def test_a_text_is_itself(text: str) -> None:
    for output in (EXACT, LINES, TOKENS, NEAR):
        assert output.difference(text, text) == ""


@given(TEXT, TEXT)
def test_each_rule_forgives_what_the_one_before_does(got: str, wanted: str) -> None:
    verdicts = [not output.difference(got, wanted) for output in (EXACT, LINES, TOKENS, NEAR)]
    assert verdicts == sorted(verdicts)
    assert verdicts[0] == (got == wanted)
    ascii_split = [text.replace("\u00a0", "~").split() for text in (got, wanted)]
    assert verdicts[2] == (ascii_split[0] == ascii_split[1])


@given(TEXT.filter(lambda text: text.strip(" \n\r\t")), st.integers(0, 12))
def test_no_beginning_is_enough(wanted: str, cut: int) -> None:
    wanted = wanted.rstrip(" \n\r\t")
    got = wanted[:cut]
    for output in (EXACT, LINES, TOKENS):
        assert bool(output.difference(got, wanted)) == (got.rstrip(" \n\r\t") != wanted)


@pytest.mark.parametrize(
    ("rule", "got", "wanted", "equal"),
    [
        (EXACT, "1\n", "1", False),
        (LINES, "1 \r\n2\n\n\n", "1\n2", True),
        (LINES, " 1", "1", False),
        (LINES, "\n1", "1", False),
        (LINES, "1\n\n2", "1\n2", False),
        (LINES, "1\u00a0", "1", False),
        (LINES, "1\x0b2", "1\n2", False),
        (LINES, "1\u20282", "1\n2", False),
        (LINES, "", "", True),
        (LINES, "", "\n\n", True),
        (TOKENS, "1\n2 3", "1 2\n3\n", True),
        (TOKENS, "12 3", "1 23", False),
        (NEAR, "0.3333333", "0.33333333", True),
        (NEAR, "3.3333333e-1", "0.33333333", True),
        (NEAR, ".33333333", "0.33333333", True),
        (NEAR, "1", "1.0", True),
        (NEAR, "1.0", "1", False),
        (NEAR, "nan", "1.0", False),
        (NEAR, "nan", "nan", True),
        (NEAR, "inf", "1e308", False),
        (NEAR, "1e999", "1e308", False),
        (NEAR, "1_0.0", "10.0", False),
        (NEAR, "\u0661.0", "1.0", False),
        (NEAR, "0x1p0", "1.0", False),
        (NEAR, "1.0 2.0", "1.0", False),
        (NEAR, "1.0", "1.0 2.0", False),
        (NEAR, "0.34", "0.33", False),
        (NEAR, "9" * 5000, "1.0", False),
    ],
)
def test_rules(rule: Output, got: str, wanted: str, equal: bool) -> None:
    assert (rule.difference(got, wanted) == "") is equal


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens"):
        Output("lines", tolerance=0.1)
    with pytest.raises(ValueError, match="rule"):
        Output("line")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        TextTask([])
    with pytest.raises(ValueError, match="FFFD"):
        TextCase("", "\ufffd")
    with pytest.raises(ValueError, match="passes everything"):
        CodeTask(["f"])
    with pytest.raises(ValueError, match="list"):
        CodeTask("solve", "assert solve()")
