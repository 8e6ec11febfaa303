"""The page docs/parity.md is the table, and every line of the table has a test."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.parity.compare import TESTED
from tests.parity.table import NONE, PAGE, ROWS, page


def test_the_page_is_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.parity.table`"


def test_every_key_is_there_once():
    keys = [row.key for row in ROWS]
    assert len(set(keys)) == len(keys)


@pytest.mark.slow
def test_every_line_is_tested():
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.parity.{path.stem}")
    assert {row.key for row in ROWS if row.ours != NONE} == TESTED
