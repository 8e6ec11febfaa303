"""Tools: schemas from signatures, arguments checked, whatever happens answered with a text."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentrl.env import Tool, ToolResult, tool
from agentrl.env.text import as_text, clean, shorten
from agentrl.errors import DataError, EnvDefinitionError, SandboxFailure, ToolFailure


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int = 1


@tool
def paint(
    color: Color,
    layers: Annotated[int, Field(ge=1, le=3)],
    where: Address,
    mode: Literal["fast", "slow"] = "fast",
    tags: list[str] | None = None,
) -> str:
    """Paint a house.

    Takes a day.

    Args:
        color: The color
            to take.
        layers (int): How many.
        where: Which house.
    """
    return f"{color} {layers} {where.street} {mode} {tags}"


def call(function: Any, **arguments: Any) -> ToolResult:
    return asyncio.run(Tool.of(function).call(arguments))


def test_the_schema_says_what_the_signature_and_the_docstring_say() -> None:
    function = Tool.of(paint).schema["function"]
    assert Tool.of(paint).schema["type"] == "function"
    assert (function["name"], function["description"]) == ("paint", "Paint a house.\nTakes a day.")
    parameters = function["parameters"]
    assert (parameters["type"], parameters["required"]) == ("object", ["color", "layers", "where"])
    properties = parameters["properties"]
    assert list(properties) == ["color", "layers", "where", "mode", "tags"]
    assert properties["layers"] == {"type": "integer", "minimum": 1, "maximum": 3, "description": "How many."}
    assert properties["mode"] == {"type": "string", "enum": ["fast", "slow"], "default": "fast"}
    assert properties["color"]["description"] == "The color to take."
    assert parameters["$defs"]["Address"]["properties"]["number"] == {"type": "integer", "default": 1}
    assert '"title"' not in json.dumps(parameters)


def test_arguments_are_converted_to_their_types() -> None:
    answer = call(paint, color="red", layers="2", where={"street": "Elm"}, tags=["a"])
    assert answer == ToolResult("red 2 Elm fast ['a']")


def typed(
    n: int, on: bool, xs: list[float], names: dict[str, int], note: str, top: int | None = 7, any_: Any = 0
) -> str:
    """A tool with arguments of many types."""
    return repr((n, on, xs, names, note, top, any_))


def test_arguments_that_are_text_are_read_as_their_types_want() -> None:
    """As families whose arguments are all text write them: Python's words and JSON's, text left as it is."""
    given = {
        "n": "3",
        "on": "True",
        "xs": " [1, 2.5]\n",
        "names": '{"a": 1}',
        "note": "[1]",
        "top": "null",
        "any_": "5",
    }
    assert call(typed, **given).content == repr((3, True, [1.0, 2.5], {"a": 1}, "[1]", None, "5"))
    assert call(typed, **{**given, "top": "None", "note": "null"}).content.endswith("'null', None, '5')")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"xs": "[1, NaN]"}, "xs: Input should be a valid list"),
        ({"xs": "1, 2"}, "xs: Input should be a valid list"),
        ({"xs": '["a"]'}, "xs: Input should be a valid list"),
        ({"n": "three"}, "n: Input should be a valid integer"),
        ({"n": "None"}, "n: Input should be a valid integer"),
        ({"xs": "[" * 100_000}, "xs: Input should be a valid list"),
    ],
)
def test_text_that_cannot_be_read_is_explained_as_text(changed: dict[str, Any], message: str) -> None:
    given = {"n": "3", "on": "true", "xs": "[]", "names": "{}", "note": "x"}
    answer = call(typed, **{**given, **changed})
    assert answer.error == "bad_arguments"
    assert message in answer.content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 2, "where": {"street": "Elm"}}, "color: Field required"),
        ({"color": "green", "layers": 2, "where": {"street": "Elm"}}, "color: Input should be 'red' or 'blue'"),
        ({"color": "red", "layers": 9, "where": {"street": "Elm"}}, "layers: Input should be less than or equal to 3"),
        ({"color": "red", "layers": 1, "where": {}}, "where.street: Field required"),
        ({"color": "red", "layers": 1, "where": {"street": "Elm"}, "p0": "red"}, "p0: Extra inputs are not permitted"),
    ],
)
def test_bad_arguments_are_explained_and_nothing_runs(arguments: dict[str, Any], message: str) -> None:
    answer = call(paint, **arguments)
    assert answer.error == "bad_arguments"
    assert answer.content == f"Error: bad arguments for paint: {message}"


def test_parameters_may_have_any_name() -> None:
    def odd(json: str, copy: int, model_config: str, schema: bool, self_: str = "s", title: str = "t") -> str:
        return f"{json} {copy} {model_config} {schema} {self_} {title}"

    assert list(Tool.of(odd).schema["function"]["parameters"]["properties"]) == [
        "json",
        "copy",
        "model_config",
        "schema",
        "self_",
        "title",
    ]
    assert call(odd, json="j", copy=1, model_config="m", schema=True).content == "j 1 m True s t"


def test_a_default_is_the_function_s_own() -> None:
    shared: list[int] = []

    def add(value: int, into: list[int] = shared) -> int:
        into.append(value)
        return len(into)

    assert [call(add, value=v).content for v in (1, 2)] == ["1", "2"]
    assert shared == [1, 2]


def test_a_tool_without_type_hints_is_refused_by_name() -> None:
    def lookup(key, limit: int = 3) -> str:
        return key

    with pytest.raises(EnvDefinitionError, match=r"lookup: parameter 'key' has no type hint; write `key: str`"):
        Tool.of(lookup)


def star(*keys: str) -> str: ...
def stars(**keys: str) -> str: ...
def positional(key: str, /) -> str: ...
def unknown_type(key: Missing) -> str: ...  # type: ignore[name-defined]  # noqa: F821
def no_json(key: object, handler: type[int] | Exception) -> str: ...
def stranger(key: str) -> str:
    """Find.

    Args:
        kye: The key.
    """


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (star, r"`\*keys: .*` cannot be given by name"),
        (stars, r"`\*\*keys: .*` cannot be given by name"),
        (positional, r"`key: .*` cannot be given by name"),
        (unknown_type, "unknown_type: its type hints cannot be read .*'Missing'"),
        (no_json, "tool no_json: "),
        (stranger, "describes kye, which is no parameter; the parameters are key"),
    ],
)
def test_a_signature_that_cannot_work_is_refused(function: Any, message: str) -> None:
    with pytest.raises(EnvDefinitionError, match=message):
        Tool.of(function)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(EnvDefinitionError, match="deadline_s"):
        tool(deadline_s=0)
    with pytest.raises(EnvDefinitionError, match="max_result_chars"):
        tool(max_result_chars=10)
    with pytest.raises(EnvDefinitionError, match="function or method is wanted below @tool"):
        tool(3)  # type: ignore[type-var]
    with pytest.raises(EnvDefinitionError, match="cannot be a tool's name"):
        Tool.of(tool(name="two words")(lambda: 1))


def test_a_marked_function_stays_a_function() -> None:
    assert tool(paint) is paint
    assert tool(name="brush", deadline_s=1.5)(paint).__name__ == "paint"
    assert paint(Color.RED, 1, Address(street="Elm")) == "red 1 Elm fast None"
    tool(paint)


@dataclasses.dataclass
class Point:
    x: int
    label: str


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ({"a": [1, None, True], "ü": 1.5}, '{"a": [1, null, true], "ü": 1.5}'),
        (None, "null"),
        ({3, 1, 2}, "[1, 2, 3]"),
        (Point(1, "p"), '{"x": 1, "label": "p"}'),
        ([Address(street="Elm")], '[{"street": "Elm", "number": 1}]'),
        (ValueError("x"), '"x"'),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("caf\u00e9 \xff".encode("utf-8"), "caf\u00e9 \xff"),
        (b"caf\xe9", "caf\ufffd"),
        ({"out": b"\xe9"}, '{"out": "\ufffd"}'),
    ],
)
def test_results_become_text(value: Any, text: str) -> None:
    def give() -> Any:
        return value

    assert call(give) == ToolResult(text)


def test_a_result_that_is_no_json_is_an_error_text() -> None:
    def circle() -> Any:
        ring: list[Any] = []
        ring.append(ring)
        return ring

    assert call(circle).error == "exception"
    assert call(circle).content == "Error: ValueError: Circular reference detected"


@given(st.text(max_size=400), st.integers(100, 300))
def test_shortening_keeps_head_and_tail_within_the_limit(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
    else:
        left_out = int(short.split("[... ")[-1].split(" ")[0]) if "[... " not in text else None
        head, tail = short[:20], short[-20:]
        assert text.startswith(head)
        assert text.endswith(tail)
        if left_out is not None:
            assert len(short) - len(f"\n[... {left_out} characters left out ...]\n") + left_out == len(text)


def test_long_results_and_long_errors_are_shortened() -> None:
    @tool(max_result_chars=120)
    def long(fail: bool) -> str:
        if fail:
            raise ValueError("e" * 10_000)
        return "r" * 10_000

    for fail in (False, True):
        answer = call(long, fail=fail)
        assert len(answer.content) <= 120
        assert "characters left out" in answer.content


@pytest.mark.parametrize(
    ("value", "head", "tail"),
    [
        ("é" * 300_000, "é" * 100, "é" * 30),
        ("é".encode() * 300_000, "é" * 100, "é" * 30),
        (b"\xff" * 300_000, "\ufffd" * 100, "\ufffd" * 30),
        (list(range(300_000)), "[0, 1, 2, 3", "\n[... the rest is left out ...]"),
        ({"a": ["x" * 100] * 3000}, '{"a": ["xxxx', "\n[... the rest is left out ...]"),
    ],
)
def test_what_is_huge_is_shown_within_the_limit(value: Any, head: str, tail: str) -> None:
    @tool(max_result_chars=200)
    def huge() -> Any:
        return value

    answer = call(huge).content
    assert answer.startswith(head)
    assert answer.endswith(tail)
    assert 150 <= len(answer) <= 200


@given(
    st.recursive(
        st.text(max_size=5) | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    )
)
def test_what_is_small_is_plain_json(value: Any) -> None:
    text = as_text(value, 10**9)
    if not isinstance(value, str):
        assert text == clean(json.dumps(value, ensure_ascii=False))


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("#W1"), "Error: KeyError: '#W1'"),
        (ValueError(), "Error: ValueError"),
        (StopIteration(), "Error: RuntimeError: coroutine raised StopIteration"),
        (SystemExit(2), "Error: SystemExit: 2"),
        (TimeoutError("the socket's own"), "Error: TimeoutError: the socket's own"),
        (asyncio.CancelledError("the tool's own"), "Error: CancelledError: the tool's own"),
        (RecursionError("deep"), "Error: RecursionError: deep"),
    ],
)
def test_what_a_tool_raises_is_told_to_the_model(blocking: bool, error: BaseException, text: str) -> None:
    def fail() -> str:
        raise error

    async def fail_async() -> str:
        raise error

    assert call(fail if blocking else fail_async) == ToolResult(text, "exception")


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("error", [ToolFailure("disk full"), SandboxFailure("gone"), DataError("no file")])
def test_broken_machinery_is_raised(blocking: bool, error: Exception) -> None:
    def fail() -> str:
        raise error

    async def fail_async() -> str:
        raise error

    with pytest.raises(type(error), match=str(error)):
        call(fail if blocking else fail_async)


async def test_a_cancelled_call_stops_its_tool() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return ""

    task = asyncio.ensure_future(Tool.of(wait).call({}))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("color", "layers", "where", "mode", "tags", "p0", ""), json_values),
    )
)
def test_no_arguments_raise(arguments: dict[str, Any]) -> None:
    answer = call(paint, **arguments)
    assert answer.error in (None, "bad_arguments")
    assert answer.content.encode("utf-8")


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers()))
def test_a_call_is_taken_exactly_when_the_function_would_take_it(arguments: dict[str, int]) -> None:
    async def three(a: int, b: int, c: int = 3) -> str:
        return f"{a} {b} {c}"

    answer = call(three, **arguments)
    if {"a", "b"} <= arguments.keys():
        assert answer == ToolResult(asyncio.run(three(**arguments)))
    else:
        assert answer.error == "bad_arguments"
