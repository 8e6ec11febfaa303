from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentrl.messages import AssistantMessage, ToolCall, dump
from agentrl.render import PARSERS, HermesParser
from agentrl.render.parsers import MAX_CALL_CHARS, MAX_CALLS, MAX_DEPTH
from tests.render.chats import actions, fragments, harmless

PARSER = HermesParser()


def one(text: str) -> ToolCall:
    (call,) = PARSER.parse(text).tool_calls
    return call


def wrap(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


def test_text_alone_is_the_content():
    assert PARSER.parse("  The answer is 5.\n") == AssistantMessage(content="The answer is 5.")
    assert PARSER.parse("") == AssistantMessage()


def test_several_calls_with_text_around_and_between():
    text = (
        'First.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2.5, null]}}\n</tool_call>\nthen\n'
        '<tool_call>{"name":"now"}</tool_call> done'
    )
    message = PARSER.parse(text)
    assert message.tool_calls == (
        ToolCall(id="call_0", name="add", arguments={"a": 1, "b": [2.5, None]}),
        ToolCall(id="call_1", name="now", arguments={}),
    )
    assert message.content == "First.\n\nthen\n done"


def test_tags_inside_json_strings_are_text():
    arguments = {"code": "print('</tool_call><tool_call></think><think>')"}
    message = PARSER.parse(wrap(json.dumps({"name": "python", "arguments": arguments})) + "after")
    assert message.tool_calls == (ToolCall(id="call_0", name="python", arguments=arguments),)
    assert message.content == "after"
    assert message.thinking is None


BAD = {
    "nothing": ("", "not valid JSON"),
    "python": ("{'name': 'f', 'arguments': {}}", "not valid JSON (Expecting property name"),
    "missing brace": ('{"name": "f", "arguments": {"a": 1}', "not valid JSON"),
    "list": ('[{"name": "f"}]', "it is a list, not an object"),
    "number": ("12", "it is a number, not an object"),
    "no name": ('{"arguments": {}}', '"name" is missing'),
    "null name": ('{"name": null, "arguments": {}}', '"name" is missing'),
    "empty name": ('{"name": "", "arguments": {}}', '"name" is not a string with text'),
    "number as name": ('{"name": 3, "arguments": {}}', '"name" is not a string with text'),
    "string arguments": ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '"arguments" is a string; write the object'),
    "list arguments": ('{"name": "f", "arguments": [1]}', '"arguments" is a list, not an object'),
    "null arguments": ('{"name": "f", "arguments": null}', '"arguments" is null, not an object'),
    "boolean arguments": ('{"name": "f", "arguments": true}', '"arguments" is a boolean, not an object'),
    "unknown key": ('{"name": "f", "parameters": {"a": 1}}', "unknown key 'parameters'"),
    "key twice": ('{"name": "f", "arguments": {"a": 1, "a": 2}}', "the key 'a' stands twice"),
    "name twice": ('{"name": "f", "name": "g"}', "the key 'name' stands twice"),
    "two objects": ('{"name": "f"} {"name": "g"}', "text follows the JSON object"),
    "not a number": ('{"name": "f", "arguments": {"a": NaN}}', "NaN is not a JSON value"),
    "infinite": ('{"name": "f", "arguments": {"a": 1e999}}', "number out of range"),
    "many digits": ('{"name": "f", "arguments": {"a": ' + "9" * 9999 + "}}", "too large"),
    "half a pair": ('{"name": "f", "arguments": {"a": "\\ud800"}}', "half of a surrogate pair"),
    "half a pair as name": ('{"name": "\\ud800"}', "half of a surrogate pair"),
    "half a pair as key": ('{"name": "f", "\\udfff": 1}', "unknown key"),
    "deep": ('{"name": "f", "arguments": {"a": ' + "[" * 40 + "]" * 40 + "}}", f"nested deeper than {MAX_DEPTH}"),
    "very deep": ('{"name": "f", "arguments": {"a": ' + "[" * 200_000, "too deeply nested"),
    "huge": (json.dumps({"name": "f", "arguments": {"a": "x" * MAX_CALL_CHARS}}), f"more than {MAX_CALL_CHARS}"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_call_says_what_was_wrong_and_what_is_wanted(what: str):
    body, reason = BAD[what]
    message = PARSER.parse("before " + wrap(body) + " after " + wrap('{"name": "ok"}'))
    bad, good = message.tool_calls
    assert bad.error is not None
    assert reason in bad.error
    assert '{"name": "tool name", "arguments": {"argument name": value}}' in bad.error
    assert bad.arguments == {}
    assert good == ToolCall(id="call_1", name="ok")
    assert message.content == "before  after"
    json.dumps(dump([message]), ensure_ascii=False).encode()


def test_a_bad_call_keeps_the_name_that_was_read():
    assert one(wrap('{"name": "f", "arguments": 3}')).name == "f"


@pytest.mark.parametrize("body", ['{"name": "f", "arguments": {"a": 1', '{"name": "f", "arguments": {}}', "", "{"])
def test_a_call_without_its_closing_tag_was_cut(body: str):
    message = PARSER.parse(f"text <tool_call>\n{body}")
    assert message.content == "text"
    assert "its closing tag is missing" in (message.tool_calls[0].error or "")


def test_a_call_cut_by_the_next_one_does_not_swallow_it():
    first, second = PARSER.parse('<tool_call>{"name": "f", <tool_call>{"name": "g"}</tool_call>').tool_calls
    assert "its closing tag is missing" in (first.error or "")
    assert second == ToolCall(id="call_1", name="g")


def test_calls_over_the_limit_are_refused():
    calls = PARSER.parse(wrap('{"name": "f"}') * (MAX_CALLS + 5)).tool_calls
    assert len(calls) == MAX_CALLS
    assert [c.error is None for c in calls] == [True] * (MAX_CALLS - 1) + [False]
    assert f"more than {MAX_CALLS} calls" in (calls[-1].error or "")
    assert PARSER.parse(wrap('{"name": "f"}') * MAX_CALLS).tool_calls[-1].error is None


def test_thinking():
    call = wrap('{"name": "f"}')
    assert PARSER.parse(f"<think>\nhm {call}\n</think>\n\nYes.\n{call}") == AssistantMessage(
        content="Yes.", thinking=f"hm {call}", tool_calls=(ToolCall(id="call_0", name="f"),)
    )
    assert PARSER.parse("<think>\n\n</think>\n\nYes.") == AssistantMessage(content="Yes.", thinking="")
    assert PARSER.parse(f"a <think>cut {call}") == AssistantMessage(content="a", thinking=f"cut {call}")
    assert PARSER.parse("opened before\n</think>\n\nYes.") == AssistantMessage(content="Yes.", thinking="opened before")
    assert PARSER.parse("<think>a</think>b<think>c</think>d") == AssistantMessage(content="bd", thinking="a\nc")
    assert PARSER.parse(f"a{call}</think>x{call}") == AssistantMessage(
        content="x", thinking=f"a{call}", tool_calls=(ToolCall(id="call_0", name="f"),)
    )
    assert PARSER.parse(f"<think>a</think>{call}</think>x") == AssistantMessage(
        content="</think>x", thinking="a", tool_calls=(ToolCall(id="call_0", name="f"),)
    )


def test_format_writes_what_the_template_writes():
    message = AssistantMessage(
        content="Two:",
        thinking="hm",
        tool_calls=(ToolCall(id="a", name="f", arguments={"x": "é\n"}), ToolCall(id="b", name="g")),
    )
    assert PARSER.format(message) == (
        '<think>\nhm\n</think>\n\nTwo:\n<tool_call>\n{"name": "f", "arguments": {"x": "é\\n"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    )


@settings(max_examples=200, deadline=None)
@given(message=actions(harmless.map(str.strip), thinking=True, names=harmless.filter(bool)))
def test_what_is_written_is_read_back(message: AssistantMessage):
    assert PARSER.parse(PARSER.format(message)) == message


crumbs = ['{"name": "f", "arguments": {', '{"name": "f"}', "}}", "[" * 50, '"\\ud83d"', "NaN", "1e999", ": ", ","]
written = actions(st.text(max_size=6)).map(PARSER.format)
near_miss = st.lists(fragments | st.text(max_size=6) | st.sampled_from(crumbs) | written, max_size=16).map("".join)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = PARSER.format(draw(actions(harmless, thinking=True)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + draw(fragments | st.text(max_size=3)) + text[end:]
    return text


@settings(max_examples=500, deadline=None)
@given(text=near_miss | mutated() | st.text() | st.text(st.characters(categories=["Cs", "Cc", "Lu"])))
@example(text="<tool_call>" * 5000)
@example(text='<tool_call>{"' * 5000)
@example(text="<think>" * 5000 + "</think>" * 5000)
@example(text="[" * 100_000)
def test_any_text_is_read_without_raising(text: str):
    message = PARSER.parse(text)
    assert [call.id for call in message.tool_calls] == [f"call_{i}" for i in range(len(message.tool_calls))]
    assert all(call.error or call.name for call in message.tool_calls)
    json.dumps(dump([message]), ensure_ascii=False, allow_nan=False).encode()  # can be kept in records
    PARSER.format(message).encode()


def test_parsers_by_name():
    assert isinstance(PARSERS["hermes"](), HermesParser)
