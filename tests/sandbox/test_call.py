"""Values that come back from a call, and how they are compared."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.sandbox import SyncSandboxPool, same_value
from tests.sandbox.attack import LIMITS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_values_cross_as_they_are(pool: SyncSandboxPool) -> None:
    value = [1, -2.5, True, None, "ü\ud800", {"a": [[], {}]}, 10**400, 1e300]
    answer = pool.call("def same(x, *, y): return x, y", "same", [value], {"y": 0})
    assert answer.run.status == "ok"
    assert answer.value == [value, 0]
    assert [type(each) for each in answer.value[0]] == [type(each) for each in value]


def test_what_is_printed_is_no_part_of_the_value(pool: SyncSandboxPool) -> None:
    answer = pool.call("print('{\"value\": 1}')\ndef f():\n    print('inside')\n    return 2", "f")
    assert (answer.value, answer.run.stdout) == (2, '{"value": 1}\ninside\n')


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def f(): return object()", "error"),
        ("def f(): return {1: 2}", "error"),
        ("def f(): return {1, 2}", "error"),
        ("def f(): return '\\x00' * (2 << 20)", "error"),
        ("def f(): raise KeyError('x')", "error"),
        ("def f():\n    while True: pass", "timeout"),
        ("import os\ndef f(): os._exit(0)", "error"),
        ("import os\ndef f():\n    os.write(3, b'[' * 9000)\n    os._exit(0)", "error"),
        (
            "import os\ndef f():\n    os.write(3, b'{\"value\": ' + b'[' * 200 + b']' * 200 + b'}')\n    os._exit(0)",
            "error",
        ),
        ('import os\ndef f():\n    os.write(3, b\'{"value": 1}{"value": 1}\')\n    os._exit(0)', "error"),
        ("import os\ndef f():\n    os.write(3, b'{\"value\": ' + b'9' * 9000 + b'}')\n    os._exit(0)", "error"),
        ('import os\ndef f():\n    os.write(3, b\'{"value": 1, "ok": true}\')\n    os._exit(0)', "error"),
        ("g = 1", "error"),
    ],
)
def test_no_value_without_one_whole_answer(pool: SyncSandboxPool, code: str, status: str) -> None:
    answer = pool.call(code, "f", limits=dataclasses.replace(LIMITS, cpu_s=0.5))
    assert (answer.value, answer.run.status) == (None, status)
    assert answer.run.error


def test_nothing_is_remembered_from_call_to_call(pool: SyncSandboxPool) -> None:
    code = "import builtins\ndef f():\n    builtins.n = getattr(builtins, 'n', 0) + 1\n    return builtins.n"
    assert [pool.call(code, "f").value for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("got", "wanted", "tolerance", "same"),
    [
        (1, 1, 0, True),
        (True, 1, 0, False),
        (1, True, 0, False),
        (1.0, 1, 0, False),
        (1, 1.0, 0, False),
        (1, 1.0, 1e-9, True),
        (True, 1.0, 1e-9, False),
        (math.nan, math.nan, 0, False),
        (math.nan, math.nan, 1, False),
        (math.inf, math.inf, 1e-9, True),
        (math.inf, 1e308, 1e-9, False),
        (10**400, 1.0, 1e-9, False),
        (1.0 + 1e-7, 1.0, 1e-6, True),
        (1.0 + 1e-5, 1.0, 1e-6, False),
        ("1", 1, 0, False),
        ([1, 2], (1, 2), 0, True),
        ([1, 2], [1], 0, False),
        ([[1.0]], [[1.0 + 1e-9]], 1e-6, True),
        ({"a": 1}, {"a": 1, "b": 2}, 0, False),
        ({"a": [True]}, {"a": [1]}, 0, False),
        (None, 0, 0, False),
        ("", None, 0, False),
    ],
)
def test_comparison_is_by_type(got: Any, wanted: Any, tolerance: float, same: bool) -> None:
    assert same_value(got, wanted, tolerance=tolerance) is same


@settings(max_examples=50)
@given(VALUES)
def test_every_value_is_the_same_as_itself(value: Any) -> None:
    assert same_value(value, value)
    assert same_value([value], (value,))
    assert not same_value([value, 0], [value])
