"""Proves, once, that a chat template can be rendered append-only.

What comes in: a renderer. What goes out: nothing, or a `ConfigError` that says what the template does. A probe chat
(calls, several results in a row, follow-ups) is rendered in one go and turn by turn: the ids must be equal. The same
chat with special strings in every text must hold the same special tokens, and the parser must read what it writes.

The probe has no thinking: templates that drop thinking from earlier turns pass. For these the token stream keeps what
was sampled, which is what the policy saw. Knows no environment and no engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage
from agentrl.render.parser import ToolParser
from agentrl.render.tokenizer import Tokenizer
from agentrl.trajectory import IntArray

_MOST_STRINGS = 64  # some tokenizers have thousands of reserved special tokens
_PROPERTY = {"key": {"type": "string", "description": "What to look up."}}
_SCHEMA = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Look a key up.",
        "parameters": {"type": "object", "properties": _PROPERTY, "required": ["key"]},
    },
}


class Renderer(Protocol):
    """What is probed: the faces of `renderer.Renderer`."""

    tokenizer: Tokenizer
    parser: ToolParser

    def prompt(self, messages: Sequence[Message], tool_schemas: Sequence[Mapping[str, Any]] = ()) -> IntArray: ...

    def extend(self, new_messages: Sequence[Message], *, stopped: bool) -> IntArray: ...

    def encode_action(self, message: AssistantMessage) -> IntArray: ...

    def parse(self, token_ids: npt.ArrayLike) -> AssistantMessage: ...


def check_renderer(renderer: Renderer) -> None:
    """Raise a `ConfigError` unless the renderer's template can be extended exactly and safely."""
    chat = _probe_chat("")
    full = renderer.prompt(chat, [_SCHEMA])
    grown = _turn_by_turn(renderer, chat)
    if full.tolist() != grown.tolist():
        raise ConfigError(_difference(renderer, full, grown))
    strings = list(renderer.tokenizer.special_ids)[:_MOST_STRINGS]
    hostile = renderer.prompt(_probe_chat(" ".join(strings)), [_SCHEMA])
    if _special_ids(renderer, hostile) != _special_ids(renderer, full):
        raise ConfigError(
            "the chat template changes the text of messages in a way that lets special tokens in from tool results or "
            "prompts. Use a template that writes content as it is"
        )
    for message in chat:
        if isinstance(message, AssistantMessage) and renderer.parse(renderer.encode_action(message)) != message:
            raise ConfigError(
                f"the parser {type(renderer.parser).__name__} does not read back what it writes with this tokenizer: "
                f"{renderer.tokenizer.decode(renderer.encode_action(message).tolist())!r}"
            )


def _probe_chat(extra: str) -> list[Message]:
    """A chat with all that matters to a template; `extra` is put into every text that is not ours."""

    def call(n: int) -> ToolCall:
        return ToolCall(id=f"call_{n}", name="lookup", arguments={"key": f"k{n}{extra}"})

    def result(n: int) -> ToolMessage:
        return ToolMessage(content=f"value {n}{extra}", name="lookup", call_id=f"call_{n}")

    return [
        UserMessage(content=f"What is k0?{extra}"),
        AssistantMessage(tool_calls=(call(0),)),
        result(0),
        AssistantMessage(content=f"Two more.{extra}", tool_calls=(call(0), call(1))),
        result(0),
        result(1),
        AssistantMessage(content=f"It is 3.{extra}"),
        UserMessage(content=f"And k1?{extra}"),
        AssistantMessage(tool_calls=(call(0),)),
        result(0),
    ]


def _turn_by_turn(renderer: Renderer, chat: Sequence[Message]) -> IntArray:
    turns = [i for i, message in enumerate(chat) if isinstance(message, AssistantMessage)]
    ids = renderer.prompt(chat[: turns[0]], [_SCHEMA]).tolist()
    for turn, following in zip(turns, [*turns[1:], len(chat)], strict=True):
        action = chat[turn]
        assert isinstance(action, AssistantMessage)
        ids += renderer.encode_action(action).tolist()
        ids += renderer.extend(chat[turn + 1 : following], stopped=True).tolist()
    return np.array(ids, dtype=np.int64)


def _special_ids(renderer: Renderer, ids: IntArray) -> list[int]:
    special = set(renderer.tokenizer.special_ids.values())
    return [i for i in ids.tolist() if i in special]


def _difference(renderer: Renderer, full: IntArray, grown: IntArray) -> str:
    shorter = min(len(full), len(grown))
    at = next((i for i in range(shorter) if full[i] != grown[i]), shorter)
    decode = renderer.tokenizer.decode
    before = decode(full[max(0, at - 12) : at].tolist())
    whole, turns = decode(full[at : at + 12].tolist()), decode(grown[at : at + 12].tolist())
    return (
        f"this chat template cannot be extended turn by turn: after {before!r} it writes {whole!r} when the whole chat "
        f"is rendered and {turns!r} when it grows. It may change earlier turns, or write tool calls otherwise than "
        f"{type(renderer.parser).__name__} does. Use a template that writes a message the same whatever follows it, or "
        "another parser"
    )
