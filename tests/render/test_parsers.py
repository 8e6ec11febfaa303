"""All parsers: what is written is read back, and any text is read, in linear time, without raising."""

from __future__ import annotations

import ast
import itertools
import json
import random
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentrl.errors import ConfigError, UnknownNameError
from agentrl.messages import AssistantMessage, ToolCall, dump
from agentrl.render.parsers import (
    MAX_CALL_CHARS,
    MAX_CALLS,
    MAX_DEPTH,
    PARSERS,
    PythonBlockParser,
    PythonicParser,
    make_parser,
)
from tests.render.parsing import HOSTILE, PREFIXES, inputs, messages, random_text

FAMILIES = list(PARSERS)
MADE = {name: make() for name, make in PARSERS.items()}
READERS = {type(parser): parser for parser in MADE.values()}  # some differ in writing alone


def check_reading(text: str) -> None:
    """Every parser reads the text, and what it gives can be kept, counted and answered."""
    for parser in MADE.values():
        message = parser.parse(text)
        ids = [call.id for call in message.tool_calls]
        assert len(set(ids)) == len(ids) <= MAX_CALLS
        assert message.content == message.content.strip()
        for call in message.tool_calls:
            assert call.name or call.error
            assert not (call.error and call.arguments)
            assert call.error is None or (
                call.error.startswith("the tool call cannot be read: ") and "Want" in call.error
            )
        json.dumps(dump([message]), ensure_ascii=False, allow_nan=False).encode()  # can be kept in records
        parser.format(message).encode()


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_back(family: str, data: st.DataObject):
    message = data.draw(messages(family))
    written = MADE[family].format(message)
    assert MADE[family].parse(written) == message, written


@settings(max_examples=2500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=inputs)
@example(text="[f(a=" + "[" * 5000)
@example(text='[TOOL_CALLS]f[ARGS]{"a": ' + "[" * 100_000)
def test_any_text_is_read_without_raising(text: str):
    check_reading(text)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_texts_are_read_without_raising(capsys: pytest.CaptureFixture[str]):
    rng = random.Random(4)
    texts = {random_text(rng) for _ in range(110_000)}
    begin = time.perf_counter()
    for text in texts:
        check_reading(text)
    with capsys.disabled():
        print(
            f"\n{len(texts)} different texts, each read by {len(MADE)} parsers, in {time.perf_counter() - begin:.0f} s"
        )
    assert len(texts) >= 50_000


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_hostile_text_is_read_in_linear_time(reader: type):
    for piece in HOSTILE:
        text = piece * (100_000 // len(piece))
        begin = time.process_time()
        READERS[reader].parse(text)
        assert time.process_time() - begin < 1.0, piece


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_blanks_after_what_is_broken_are_read_in_linear_time(reader: type):
    for prefix, piece in itertools.product(PREFIXES, ("\n", " ", "\t\n", " \n;", "{ ")):
        text = prefix + piece * (100_000 // len(piece))
        begin = time.process_time()
        READERS[reader].parse(text)
        assert time.process_time() - begin < 1.0, (prefix, piece)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_megabyte_of_hostile_text(capsys: pytest.CaptureFixture[str]):
    for reader, parser in READERS.items():
        times = {}
        for prefix in PREFIXES:
            for piece in HOSTILE:
                text = prefix + piece * (1_000_000 // len(piece))
                begin = time.process_time()
                parser.parse(text)
                times[prefix, piece] = time.process_time() - begin
        worst = max(times, key=times.__getitem__)
        with capsys.disabled():
            print(f"\n{reader.__name__}: {len(times)} texts of 1 MB, the slowest {times[worst]:.2f} s: {worst}")
        assert times[worst] < 5.0


def wide(family: str, value: object) -> str:
    """A call with one argument, as the family writes it."""
    name = "python" if family == "python_block" else "f"
    key = "code" if family == "python_block" else "a"
    return MADE[family].format(AssistantMessage(tool_calls=(ToolCall(id="x", name=name, arguments={key: value}),)))


@pytest.mark.parametrize("family", FAMILIES)
def test_huge_arguments_are_refused(family: str):
    (fine,) = MADE[family].parse(wide(family, "x" * (MAX_CALL_CHARS - 100))).tool_calls
    (huge,) = MADE[family].parse(wide(family, "x" * (MAX_CALL_CHARS + 1))).tool_calls
    assert fine.error is None
    assert f"more than {MAX_CALL_CHARS}" in (huge.error or "")


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("qwen3_coder", "python_block")])
def test_deep_arguments_are_refused(family: str):
    deep: object = 1
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    (fine,) = MADE[family].parse(wide(family, deep)).tool_calls
    (refused,) = MADE[family].parse(wide(family, [deep])).tool_calls
    assert (fine.arguments, fine.error) == ({"a": deep}, None)
    assert f"nested deeper than {MAX_DEPTH}" in (refused.error or "")


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_over_the_limit_are_refused(family: str):
    name = "python" if family == "python_block" else "f"
    arguments = {"code": "1"} if family == "python_block" else {}
    many = tuple(ToolCall(id="x", name=name, arguments=arguments) for _ in range(MAX_CALLS + 3))
    full = MADE[family].parse(MADE[family].format(AssistantMessage(tool_calls=many[:MAX_CALLS]))).tool_calls
    over = MADE[family].parse(MADE[family].format(AssistantMessage(tool_calls=many))).tool_calls
    assert [call.error for call in full] == [None] * MAX_CALLS
    assert len(over) == MAX_CALLS
    assert [call.error is None for call in over] == [True] * (MAX_CALLS - 1) + [False]
    assert f"more than {MAX_CALLS} calls" in (over[-1].error or "")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_error_shows_a_form_that_the_family_reads(family: str):
    """Every family's own example, its names made real, is no other family's."""
    broken = {"python_block": "```python\nx", "qwen3_coder": "<tool_call>x</tool_call>"}
    starts = {
        "hermes": "<tool_call>",
        "mistral": "[TOOL_CALLS]",
        "mistral_v3": "[TOOL_CALLS]",
        "mistral_v7": "[TOOL_CALLS]",
    }
    text = broken.get(family) or starts.get(family, '<|python_tag|>{"n' if family == "llama3_json" else "[f(1)]")
    (call,) = MADE[family].parse(text).tool_calls
    shown = {
        "hermes": '{"name": "tool name", "arguments": {"argument name": value}}',
        "qwen3_coder": "<parameter=argument name>",
        "llama3_json": '{"name": "tool name", "parameters": {"argument name": value}}',
        "pythonic": '[tool_name(argument_name=value, other_name="text")]',
        "lfm2": '[tool_name(argument_name=value, other_name="text")]',
        "mistral": '{"argument name": value}',
        "mistral_v7": '[{"name": "tool name", "arguments": {"argument name": value}}]',
        "mistral_v3": '[{"name": "tool name", "arguments": {"argument name": value}}]',
        "python_block": "a line with ```python",
    }
    assert shown[family] in (call.error or "")


@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8),
        lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
        max_leaves=8,
    )
)
def test_pythonic_literals_are_python_s(value: object):
    """What Python itself writes for a value is read as that value, and what is written here Python reads."""
    (call,) = PythonicParser().parse(f"[f(a={value!r})]").tool_calls
    assert (call.arguments, call.error) == ({"a": value}, None)
    written = PythonicParser().format(AssistantMessage(tool_calls=(call,)))
    tree = ast.parse(written, mode="eval").body
    assert isinstance(tree, ast.List)
    assert isinstance(tree.elts[0], ast.Call)
    assert ast.literal_eval(tree.elts[0].keywords[0].value) == value


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "unfinished", ["", "[f(", '{"name": "f", "parameters": {', "<tool_call>{", "[TOOL_CALLS]f", "```python\n"]
)
def test_thinking_that_the_prompt_opened_holds_no_calls(family: str, unfinished: str):
    if family == "python_block" and unfinished.startswith("```"):
        pytest.skip("what stands between two fences is code, and may hold a closing tag")
    close = "[/THINK]" if family.startswith("mistral") else "</think>"
    message = MADE[family].parse(f"I could say\n{wide(family, 'x')}\nor\n{unfinished}{close}\n{wide(family, 'y')}")
    (call,) = message.tool_calls
    assert list(call.arguments.values()) == ["y"]
    assert (message.thinking or "").startswith("I could say")
    assert message.content == ""


def test_parsers_by_name():
    assert isinstance(make_parser("pythonic"), PythonicParser)
    block = make_parser("python_block:run.source")
    assert isinstance(block, PythonBlockParser)
    (call,) = block.parse("```python\n1\n```").tool_calls
    assert (call.name, call.arguments) == ("run", {"source": "1"})
    assert make_parser("python_block:run").parse("```python\n1\n```").tool_calls[0].arguments == {"code": "1"}


@pytest.mark.parametrize("setting", ["python_block:", "python_block:a.", "hermes:run"])
def test_a_tool_is_for_python_blocks_alone(setting: str):
    with pytest.raises(ConfigError, match="only python_block takes a tool"):
        make_parser(setting)


def test_an_unknown_parser_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'hermes'"):
        make_parser("herms")
