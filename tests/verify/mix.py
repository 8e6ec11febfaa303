"""The benchmark's mix of answers, for the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "answer_mix.py"
_SPEC = importlib.util.spec_from_file_location("answer_mix", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

VARIATIONS = _MODULE.VARIATIONS
changed = _MODULE.changed
gold_answers = _MODULE.gold_answers
