"""Tasks: what a candidate is tested with. Plain values, checked when they are made."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .equal import Equality, has_nan
from .inside.values import encode
from .text import Output


def built_in_error(name: str) -> type[Exception] | None:
    kind = getattr(builtins, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


@dataclass(frozen=True, slots=True)
class Raises:
    """An expected exception, by the name of a built-in one: that or a subclass of it."""

    name: str

    def __post_init__(self) -> None:
        if built_in_error(self.name) is None:
            raise ValueError(f"{self.name!r} is no built-in exception: give a name such as 'ValueError'")


@dataclass(frozen=True, slots=True)
class FunctionCase:
    """One call. `expected`: plain data, or `Raises`. Raises TypeError or ValueError for what cannot be compared."""

    args: Sequence[Any]
    expected: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        encode(list(self.args))
        encode(dict(self.kwargs))
        if not isinstance(self.expected, Raises) and has_nan(encode(self.expected)):
            raise ValueError("a case expects nan, which equals nothing: no candidate can pass it")


@dataclass(frozen=True, slots=True)
class FunctionTask:
    """A function to be called case by case, each in a process of its own. `function` may be `Class.method`."""

    function: str
    cases: Sequence[FunctionCase]
    equality: Equality = field(default_factory=Equality)

    def __post_init__(self) -> None:
        _some(self.cases)


@dataclass(frozen=True, slots=True)
class TextCase:
    """One run of a program: what it reads and what it should print."""

    stdin: str
    expected: str
    name: str = ""

    def __post_init__(self) -> None:
        if "\ufffd" in self.expected:
            raise ValueError("a case expects U+FFFD, which is also how output that is no UTF-8 is read: take it out")


@dataclass(frozen=True, slots=True)
class TextTask:
    """A program to be run case by case, each in a process of its own."""

    cases: Sequence[TextCase]
    output: Output = field(default_factory=Output)

    def __post_init__(self) -> None:
        _some(self.cases)


@dataclass(frozen=True, slots=True)
class CodeTask:
    """Tests that are code. They run in one sandbox, each call of the candidate in another one of its own.

    `functions`: what the tests call of the candidate's; the first is also there as `candidate`. `tests`: a source; its
    cases are `check(candidate)`, functions `test*` without arguments, unittest's methods, or if there is nothing of
    these its own asserts. `checks`: further cases, each a source. `setup`: source that the tests need, run before them:
    of the task's author, never of the candidate. `module`: a name that the tests may import the functions from.
    """

    functions: Sequence[str]
    tests: str = ""
    checks: Sequence[str] = ()
    setup: str = ""
    module: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.functions, str) or not self.functions:
            raise ValueError(f"functions is {self.functions!r}: give a list with the names of those that are tested")
        if not self.tests and not self.checks:
            raise ValueError("a task without tests passes everything: give tests or checks")


Task = FunctionTask | TextTask | CodeTask


def names_of(cases: Sequence[FunctionCase | TextCase]) -> list[str]:
    return [case.name or f"case {number}" for number, case in enumerate(cases)]


def _some(cases: Sequence[object]) -> None:
    if not cases:
        raise ValueError("a task without cases passes everything: give at least one")
