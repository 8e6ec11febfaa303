"""Strategies for chats, and texts that a tokenizer is trained on."""

from __future__ import annotations

from hypothesis import strategies as st

from agentrl.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, UserMessage
from agentrl.render.tokenizer import CONTROL_TOKENS, MARKUP_TOKENS

SPECIAL = CONTROL_TOKENS + MARKUP_TOKENS
SCHEMA = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluate an expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
    },
}

fragments = st.sampled_from(
    [*SPECIAL, "<|im_", "end|>", "<", ">", "|", "\n", "\n\n", " ", "12", "a b", "\\", '"', "é漢🙂"]
)
harmless = st.text(max_size=12).filter(lambda t: not any(s in t for s in SPECIAL))
hostile = st.lists(fragments | st.text(max_size=4), max_size=8).map("".join)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


def json_values(text: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
    return st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3), max_leaves=6)


@st.composite
def actions(
    draw: st.DrawFn,
    text: st.SearchStrategy[str],
    *,
    thinking: bool = False,
    names: st.SearchStrategy[str] = names,
) -> AssistantMessage:
    arguments = st.dictionaries(text, json_values(text), max_size=3)
    pairs = draw(st.lists(st.tuples(names, arguments), max_size=3))
    calls = tuple(ToolCall(id=f"call_{i}", name=name, arguments=a) for i, (name, a) in enumerate(pairs))
    thought = draw(st.none() | text) if thinking else None
    return AssistantMessage(content=draw(text), tool_calls=calls, thinking=thought)


@st.composite
def answers(draw: st.DrawFn, text: st.SearchStrategy[str], action: AssistantMessage) -> list[Message]:
    out: list[Message] = [ToolMessage(content=draw(text), name=c.name, call_id=c.id) for c in action.tool_calls]
    if not out or draw(st.booleans()):
        out.extend(UserMessage(content=draw(text)) for _ in range(draw(st.integers(0 if out else 1, 2))))
    return out


@st.composite
def episodes(
    draw: st.DrawFn, text: st.SearchStrategy[str], *, thinking: bool = False
) -> tuple[list[Message], list[tuple[AssistantMessage, list[Message]]]]:
    """The opening messages, then each action with what the environment answered."""
    opening: list[Message] = [SystemMessage(content=draw(text))] if draw(st.booleans()) else []
    opening.append(UserMessage(content=draw(text)))
    turns = []
    for _ in range(draw(st.integers(0, 4))):
        action = draw(actions(text, thinking=thinking))
        turns.append((action, draw(answers(text, action))))
    return opening, turns


def demonstrations() -> list[str]:
    return [
        f"<|im_start|>user\nWhat is {i} * {i + 7}?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        f'{{"name": "calculator", "arguments": {{"expression": "{i} * {i + 7}"}}}}\n</tool_call><|im_end|>\n'
        f"<|im_start|>user\n<tool_response>\n{i * (i + 7)}\n</tool_response><|im_end|>\n"
        for i in range(60)
    ]
