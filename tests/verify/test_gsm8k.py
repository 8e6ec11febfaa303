"""Every GSM8K training answer, as models write it: right when right, wrong when changed, and as math-verify says."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from agentrl.errors import AgentRLError
from agentrl.verify import Judgement, Verdict, Verifier

from .conftest import needs_math_verify
from .mix import VARIATIONS, changed, gold_answers

# How math-verify 0.9.0 differs on this mix; docs/verify.md says who is right.
ITS_OWN = {"spacing": "it reads no number behind `####` without a space", "money": "it reads no number behind `-$`"}
WRONG_FORMS = ("mark", "units", "trailing", "latex")


def right(golds: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(kind, gold, response)"""
    for gold in golds:
        yield from ((kind, gold, vary(gold)) for kind, vary in VARIATIONS.items())


def wrong(golds: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for gold in golds:
        for place, other in enumerate(changed(gold)):
            kind = WRONG_FORMS[place % len(WRONG_FORMS)]
            yield kind, gold, VARIATIONS[kind](other) if "." not in other else f"#### {other}"


def missed(
    cases: list[tuple[str, str, str]], found: list[Judgement | AgentRLError], verdict: Verdict
) -> list[tuple[tuple[str, str, str], Judgement | AgentRLError]]:
    return [
        (case, got)
        for case, got in zip(cases, found, strict=True)
        if not isinstance(got, Judgement) or got.verdict is not verdict
    ]


def test_there_are_all_answers_and_ten_variations(real_data: Path) -> None:
    assert len(gold_answers(real_data)) == 7473
    assert len(VARIATIONS) >= 10
    assert len({VARIATIONS[kind]("1,080") for kind in VARIATIONS}) == len(VARIATIONS)


def test_every_answer_in_every_dress_is_right_by_the_rules_alone(real_data: Path) -> None:
    with Verifier(symbolic=False) as verifier:
        cases = list(right(gold_answers(real_data)))
        found = verifier.verify_batch_sync((f"#### {gold}", response) for _, gold, response in cases)
    assert missed(cases, found, Verdict.CORRECT) == []


def test_every_changed_number_is_wrong(real_data: Path) -> None:
    with Verifier(symbolic=False) as verifier:
        cases = list(wrong(gold_answers(real_data)))
        found = verifier.verify_batch_sync((gold, response) for _, gold, response in cases)
    assert missed(cases, found, Verdict.WRONG) == []


@needs_math_verify
@pytest.mark.parametrize("every", [100, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_verdicts_are_math_verifys_but_for_its_own(real_data: Path, every: int) -> None:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    golds = gold_answers(real_data)[::every]
    differ: Counter[str] = Counter()
    with Verifier(symbolic=False) as verifier:
        for kind, gold, response in (*right(golds), *wrong(golds)):
            theirs = verify(parse(gold), parse(response))
            differ[kind] += theirs is not verifier.verify_sync(gold, response).correct
    assert {kind for kind, times in differ.items() if times} <= set(ITS_OWN), differ
    assert differ["spacing"] == len(golds)  # else the list in the docs is out of date
