"""Messages <-> the JSON of OpenAI's chat completions.

What comes in: an episode's messages, or an endpoint's answer. What goes out: the body's messages, or what the policy
said. Knows no network and no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from agentrl.messages import AssistantMessage, Message, ToolCall, ToolMessage

_REASONS: Mapping[Any, Literal["stop", "length"]] = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
}
_UNNAMED = "unnamed"  # endpoints refuse a call without a name, even one that was answered with an error


class BadChat(ValueError):
    """An answer that is no chat completion."""


class Said(NamedTuple):
    message: AssistantMessage
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int  # as the endpoint counts them; 0: it does not tell
    cached_tokens: int
    completion_tokens: int


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as an endpoint reads them. Calls get ids that are unique in the whole chat, as endpoints want."""
    chat: list[dict[str, Any]] = []
    ids: dict[str, str] = {}
    for message in messages:
        if isinstance(message, AssistantMessage):
            ids = {call.id: f"call_{len(chat)}_{i}" for i, call in enumerate(message.tool_calls)}
            chat.append(_assistant(message, ids))
        elif isinstance(message, ToolMessage):
            chat.append(
                {
                    "role": "tool",
                    "content": message.content,
                    "tool_call_id": ids.get(message.call_id, message.call_id),
                }
            )
        else:
            chat.append({"role": message.role, "content": message.content})
    return chat


def _assistant(message: AssistantMessage, ids: Mapping[str, str]) -> dict[str, Any]:
    if not message.tool_calls:
        return {"role": "assistant", "content": message.content}
    calls = [
        {
            "id": ids[call.id],
            "type": "function",
            "function": {
                "name": call.name or _UNNAMED,
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
            },
        }
        for call in message.tool_calls
    ]
    return {"role": "assistant", "content": message.content or None, "tool_calls": calls}


def read_chat(answer: Any) -> Said:
    """What an endpoint's answer says.

    A call whose arguments cannot be read is written into the text as the policy wrote it, in the form of a tool call,
    so that the renderer's parser meets it and tells the policy what is wrong.

    Raises:
        BadChat: the answer is no chat completion, or the endpoint held the answer back.
    """
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text = _text(message.get("content"))
        thinking = message.get("reasoning_content") or message.get("reasoning")
        calls: list[ToolCall] = []
        for asked in message.get("tool_calls") or ():
            name, arguments = asked["function"]["name"], asked["function"].get("arguments") or "{}"
            read = _arguments(arguments)
            if read is None:
                raw = f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'
                text = "\n".join(filter(None, (text, raw)))
            else:
                calls.append(ToolCall(id=f"call_{len(calls)}", name=name, arguments=read))
        usage = answer.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        counts = (int(usage.get("prompt_tokens") or 0), int(cached), int(usage.get("completion_tokens") or 0))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise BadChat(f"the answer is no chat completion: {type(error).__name__}: {error}") from error
    reason = _REASONS.get(choice.get("finish_reason"))
    if reason is None:
        raise BadChat(f"the answer ended with {choice.get('finish_reason')!r}; wanted 'stop', 'tool_calls' or 'length'")
    thought = thinking if isinstance(thinking, str) else None
    return Said(AssistantMessage(content=text, tool_calls=tuple(calls), thinking=thought), reason, *counts)


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _arguments(text: Any) -> dict[str, Any] | None:
    """The arguments, or None where they are no JSON object."""
    if isinstance(text, dict):
        return text
    try:
        read = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
