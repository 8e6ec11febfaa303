"""Messages: read back as they were written, refused where they are wrong, shown to chat templates."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl.messages import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
    dump,
    from_dicts,
    to_dicts,
)

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.builds(
    ToolCall, id=TEXT, name=TEXT, arguments=st.dictionaries(TEXT, JSON, max_size=3), error=st.none() | TEXT
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(SystemMessage, content=TEXT),
    st.builds(UserMessage, content=TEXT),
    st.builds(
        AssistantMessage,
        content=TEXT,
        tool_calls=st.lists(CALLS, max_size=3).map(tuple),
        thinking=st.none() | TEXT,
    ),
    st.builds(ToolMessage, content=TEXT, name=TEXT, call_id=TEXT),
)


@given(st.lists(MESSAGES, max_size=5))
def test_what_dump_wrote_is_read_back_equal(messages: list[Message]) -> None:
    dumped = dump(messages)
    assert from_dicts(dumped) == messages
    assert from_dicts(json.loads(json.dumps(dumped))) == messages
    assert dump(tuple(messages)) == dumped


@given(st.lists(MESSAGES, max_size=5))
def test_templates_see_every_role_and_text(messages: list[Message]) -> None:
    shown = to_dicts(messages)
    assert [(d["role"], d["content"]) for d in shown] == [(m.role, m.content) for m in messages]
    json.dumps(shown)
    for message, seen in zip(messages, shown, strict=True):
        if isinstance(message, AssistantMessage):
            calls = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in seen.get("tool_calls", [])]
            assert calls == [(c.id, c.name, c.arguments) for c in message.tool_calls]
            assert seen.get("reasoning_content") == message.thinking


def test_templates_see_the_openai_form() -> None:
    """Absent calls and thinking are absent keys: templates ask whether they are there."""
    call = ToolCall(id="c0", name="add", arguments={"a": 1})
    assert to_dicts([AssistantMessage(content="so", tool_calls=(call,), thinking="hm")]) == [
        {
            "role": "assistant",
            "content": "so",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
        }
    ]
    assert to_dicts([AssistantMessage(content="so")]) == [{"role": "assistant", "content": "so"}]
    assert to_dicts([ToolMessage(content="2", name="add", call_id="c0")]) == [
        {"role": "tool", "content": "2", "name": "add", "tool_call_id": "c0"}
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "robot", "content": "a"},
        {"content": "a"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": "a", "name": "b"},
        {"role": "assistant", "tool_calls": [{"name": "add"}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "name": "add", "arguments": "{}"}]},
    ],
)
def test_wrong_messages_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        from_dicts([wrong])


@pytest.mark.parametrize(
    "value",
    [UserMessage(content="a"), AssistantMessage(content="a"), ToolCall(id="1", name="add"), ToolMessage(content="")],
)
def test_messages_are_frozen(value: Any) -> None:
    field = "id" if isinstance(value, ToolCall) else "content"
    with pytest.raises(ValidationError):
        setattr(value, field, "b")


def test_calls_do_not_share_their_default_arguments() -> None:
    one, other = ToolCall(id="1", name="a"), ToolCall(id="2", name="b")
    assert one.arguments == other.arguments == {}
    assert one.arguments is not other.arguments
