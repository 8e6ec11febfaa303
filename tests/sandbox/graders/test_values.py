"""Values on their way out of a sandbox, and how they are compared."""

from __future__ import annotations

import enum
import json
import math
import time
from collections import Counter, OrderedDict, defaultdict, namedtuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.sandbox.grading import Equality, FunctionCase, FunctionTask, Raises
from agentrl.sandbox.grading.equal import has_nan
from agentrl.sandbox.grading.inside.values import DEEPEST, decode, encode

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda each: st.tuples(each, each) | st.frozensets(each, max_size=3),
    max_leaves=4,
)
VALUES = st.recursive(
    PLAIN,
    lambda each: (
        st.lists(each, max_size=4)
        | st.lists(each, max_size=4).map(tuple)
        | st.dictionaries(KEYS, each, max_size=4)
        | st.frozensets(KEYS, max_size=4)
    ),
    max_leaves=12,
)
STRICT = Equality(tuples="strict")


def crossed(value: Any) -> Any:
    return json.loads(json.dumps(encode(value)))


def same(got: Any, wanted: Any, how: Equality | None = None) -> bool:
    return (how or Equality()).same(crossed(got), encode(wanted))


def typed(value: Any) -> Any:
    """A slow twin of the comparison: equal only for values that are the same in type and content; sets by kind."""
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(typed, value)]
    if isinstance(value, dict):
        return ["dict", sorted(([typed(key), typed(each)] for key, each in value.items()), key=repr)]
    if isinstance(value, set | frozenset):
        return ["set", sorted(map(typed, value), key=repr)]
    return [type(value).__name__, value + 0 if isinstance(value, float) else value]


@given(VALUES)
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    assert repr(typed(decode(crossed(value)))) == repr(typed(value))


@given(VALUES)
def test_a_value_is_itself_unless_nan_is_in_it(value: Any) -> None:
    assert same(value, value, STRICT) is not has_nan(encode(value))


@given(VALUES, VALUES)
def test_two_values_are_the_same_if_types_and_contents_are(one: Any, other: Any) -> None:
    if not (has_nan(encode(one)) or has_nan(encode(other))):
        assert same(one, other, STRICT) == (typed(one) == typed(other))


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (True, 1), (1, True), (0, False), (1.0, 1), (1, 1.0), ("1", 1), (b"a", "a"), (None, False), ("", None),
        (math.nan, math.nan), ([math.nan], [1]), (math.inf, 1e308), (math.inf, -math.inf), ([], {}), ((), set()),
        ([1, 2], [1]), ([1], [1, 2]), ([1, 2], [2, 1]), ({1: 2}, {True: 2}), ({"1": 2}, {1: 2}), ({1}, {1.0}),
        ({1, 2}, [1, 2]), ({"a": 1}, {"a": True}), (10**5000, 10**5000 + 1), ("e\u0301", "\u00e9"), ({}, {"a": None}),
        ({"$": "tuple", "v": [1]}, (1,)), ({(1, 2)}, {(2, 1)}), (1 + 0j, 1),
    ],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_not_the_same(got: Any, wanted: Any) -> None:
    assert not same(got, wanted)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        ((1, 2), [1, 2]), ([(1,)], ([1],)), ({1, 2}, frozenset({2, 1})), (-0.0, 0.0), (math.inf, math.inf),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}), ({(1, 2): 3}, {(1, 2): 3}), (10**5000, 10**5000), ({0.0}, {-0.0}),
        (Counter("aab"), {"a": 2, "b": 1}), (defaultdict(list, x=[1]), {"x": [1]}), (OrderedDict(a=1), {"a": 1}),
        (namedtuple("P", "x y")(1, 2), (1, 2)), (enum.IntEnum("E", "A")(1), 1), (1 + 2j, 1 + 2j), (b"\0", b"\0"),
        ("\ud800", "\ud800"), ({"$": "set", "v": [1]}, {"$": "set", "v": [1]}),
        ({frozenset({1})}, {frozenset({1})}),
    ],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_the_same(got: Any, wanted: Any) -> None:
    assert same(got, wanted)


def test_tuples_can_be_told_from_lists() -> None:
    assert not same((1, 2), [1, 2], STRICT)
    assert not same([(1,)], [[1]], STRICT)
    assert same([(1,)], [(1,)], STRICT)


def test_numbers_by_value() -> None:
    by_value = Equality(numbers="by_value")
    assert same(2, 2.0, by_value)
    assert same([2.0, {3.0: 1}, {2**70}], [2, {3: 1.0}, {float(2**70)}], by_value)
    assert not same(True, 1.0, by_value)
    assert not same(2.5, 2, by_value)


def test_tolerance_is_for_floats_that_are_expected() -> None:
    near = Equality(tolerance=1e-6)
    assert same(0.3000001, 0.3, near)
    assert same(1e9 + 1, 1e9, near)
    assert same(3, 3.0, near)
    assert same([{"a": 1.0000001}], [{"a": 1.0}], near)
    for got, wanted in ((0.31, 0.3), (3.0, 3), (math.nan, 1.0), (math.inf, 1e308), (1e308, math.inf), (True, 1.0)):
        assert not same(got, wanted, near)
    assert not same(10**400, 1e308, near)
    assert not same("1.0", 1.0, near)
    for bad in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            Equality(tolerance=bad)


@pytest.mark.parametrize(
    "said",
    [
        {"$": "any"}, {"$": ["tuple"], "v": []}, {"$": "dict", "v": [[1]]}, {"$": "int", "v": "zz"},
        {"$": "set", "v": 1}, {"$": "dict", "v": {"a": 1}}, {"$": "int", "v": 14}, {"$": None, "v": None},
    ],
)  # fmt: skip
def test_what_no_encoder_writes_is_refused(said: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Equality().same(said, 14)
    with pytest.raises((ValueError, TypeError)):
        decode(said)


def test_doubled_keys_and_members_are_no_others() -> None:
    assert not Equality().same({"$": "dict", "v": [[1, 2], [1, 2]]}, encode({1: 2, 3: 2}))
    assert not Equality().same({"$": "set", "v": [1, 1]}, encode({1, 2}))


def test_numbers_chosen_to_collide_cost_no_time() -> None:
    """Integers that all hash alike: a set of them takes quadratic time to build. Here none is built."""
    colliding = {"$": "set", "v": [n * (2**61 - 1) for n in range(1, 40_000)]}
    began = time.process_time()
    assert not Equality().same(colliding, encode(set(range(1, 40_000))))
    assert not Equality().same(colliding, encode({1}))
    assert time.process_time() - began < 10  # building such a set takes 15 s


def test_depth_is_bounded() -> None:
    value: Any = 1
    for _ in range(DEEPEST):
        value = [value]
    assert same(value, value)
    with pytest.raises(ValueError, match="nested"):
        encode([[value]])


def test_lying_subclasses_cross_as_what_they_hold() -> None:
    class Int(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __index__(self) -> int:
            return 14

        __hash__ = None  # type: ignore[assignment]

    class Text(str):
        def __str__(self) -> str:
            return "14"

    class Row(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter([14])

        def __len__(self) -> int:
            return 1

    for liar, held in ((Int(3), 3), (Text("3"), "3"), (Row([1, 2]), [1, 2])):
        assert crossed(liar) == held


@pytest.mark.parametrize("value", [object(), iter([1]), range(3), len, int, (x for x in ()), bytearray(b"a"), ...])
def test_other_things_do_not_cross(value: Any) -> None:
    with pytest.raises(TypeError, match="type"):
        encode(value)


def test_tasks_that_nobody_or_everybody_would_pass_are_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        FunctionCase((), [1.0, math.nan])
    with pytest.raises(ValueError, match="at least one"):
        FunctionTask("f", [])
    with pytest.raises(ValueError, match="built-in"):
        Raises("KeyboardInterrupt")
    with pytest.raises(TypeError):
        FunctionCase((object(),), 1)
