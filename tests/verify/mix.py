"""The benchmark's answers, for the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

_BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_MIX, _HOSTILE = _load("answer_mix"), _load("answer_hostile")

VARIATIONS = _MIX.VARIATIONS
changed = _MIX.changed
gold_answers = _MIX.gold_answers

CAPPED = _HOSTILE.CAPPED
HOSTILE = _HOSTILE.HOSTILE
SYMBOLIC = _HOSTILE.SYMBOLIC
