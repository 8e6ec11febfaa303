"""Python values as JSON that keeps their types. The same text runs in sandboxes and in the grader's process.

None, bool, int, float, str, lists and dictionaries with plain keys stand for themselves; all else is `{"$": kind, "v":
...}`: `tuple`, `set` and `frozenset` as lists, `dict` as pairs, `bytes` as hexadecimal, `int` (long ones) as
hexadecimal, `complex` as two floats. A subclass of these counts as its base, with the data that it holds and none of
its behaviour.
"""

from __future__ import annotations

from typing import Any

DEEPEST = 45  # levels
_LONG = 1 << 4096  # integers from here on cross as hexadecimal, whose conversion takes linear time


def encode(value: Any, depth: int = 0) -> Any:
    """Raises TypeError for a value of another kind, ValueError for one that is nested too deep."""
    if value is None or value is True or value is False:
        return value
    if depth > DEEPEST:
        raise ValueError(f"the value is nested deeper than {DEEPEST} levels")
    for base, how in _ENCODERS:
        if issubclass(type(value), base):
            return how(value, depth + 1)
    raise TypeError(f"a value of type {type(value).__name__} cannot be compared: return plain data")


def _int(value: Any, _: int) -> Any:
    number = int.__index__(value)
    return number if -_LONG < number < _LONG else {"$": "int", "v": hex(number)}


def _dict(value: Any, depth: int) -> Any:
    pairs = [[encode(key, depth), encode(each, depth)] for key, each in dict.items(value)]
    if all(type(key) is str for key, _ in pairs) and "$" not in (key for key, _ in pairs):
        return {key: each for key, each in pairs}  # noqa: C416 (a candidate may have taken `dict` away)
    return {"$": "dict", "v": pairs}


def _each(walk: Any, kind: str) -> Any:
    def how(value: Any, depth: int) -> Any:
        items = [encode(each, depth) for each in walk(value)]
        return {"$": kind, "v": items} if kind else items

    return how


def _complex(value: Any, _: int) -> Any:
    return {"$": "complex", "v": [float(value.real), float(value.imag)]}


_ENCODERS: tuple[tuple[type, Any], ...] = (
    (int, _int),
    (float, lambda value, _: float.__float__(value)),
    (str, lambda value, _: str.__str__(value)),
    (list, _each(list.__iter__, "")),
    (tuple, _each(tuple.__iter__, "tuple")),
    (dict, _dict),
    (set, _each(set.__iter__, "set")),
    (frozenset, _each(frozenset.__iter__, "frozenset")),
    (bytes, lambda value, _: {"$": "bytes", "v": bytes.hex(value)}),
    (complex, _complex),
)


def decode(said: Any) -> Any:
    """The value again. Raises ValueError or TypeError for what `encode` does not write."""
    if type(said) is list:
        return [decode(each) for each in said]
    if type(said) is not dict:
        return said
    if "$" not in said:
        return {key: decode(each) for key, each in said.items()}
    if set(said) != {"$", "v"} or said["$"] not in _DECODERS:
        raise ValueError(f"no value is written like this: {list(said)[:5]}")
    return _DECODERS[said["$"]](said["v"])


_DECODERS: dict[str, Any] = {
    "tuple": lambda items: tuple(decode(each) for each in items),
    "set": lambda items: {decode(each) for each in items},
    "frozenset": lambda items: frozenset(decode(each) for each in items),
    "dict": lambda pairs: {decode(key): decode(each) for key, each in pairs},
    "bytes": bytes.fromhex,
    "int": lambda text: int(text, 16),
    "complex": lambda parts: complex(*parts),
}
