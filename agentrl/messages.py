"""What is said in an episode: messages and tool calls.

Messages are a view for people, environments and chat templates; the truth is the token ids of a trajectory's
segments. They come in at the doors (environments, parsers), so they are pydantic models. Knows nothing of tokens or
environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(_Model):
    """One call the policy asked for.

    `error` is set when the text of the call could not be read; the call is then answered with that text and never run.
    """

    id: str
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None


class SystemMessage(_Model):
    role: Literal["system"] = "system"
    content: str


class UserMessage(_Model):
    role: Literal["user"] = "user"
    content: str


class AssistantMessage(_Model):
    """The policy's action. `content` is the text around the calls; `thinking` what stood in its thinking block."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: str | None = None


class ToolMessage(_Model):
    role: Literal["tool"] = "tool"
    content: str
    name: str = ""
    call_id: str = ""


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]
_MESSAGES: TypeAdapter[list[Message]] = TypeAdapter(list[Message])


def to_dicts(messages: list[Message] | tuple[Message, ...]) -> list[dict[str, Any]]:
    """Messages in the OpenAI form that chat templates read."""
    return [_to_dict(message) for message in messages]


def from_dicts(dicts: list[Mapping[str, Any]]) -> list[Message]:
    """Read messages back from the form `dump` wrote.

    Raises:
        pydantic.ValidationError: a role is unknown or a field is missing.
    """
    return _MESSAGES.validate_python(dicts)


def dump(messages: list[Message] | tuple[Message, ...]) -> list[dict[str, Any]]:
    """Messages as plain JSON values, read back by `from_dicts`."""
    return [message.model_dump(mode="json") for message in messages]


def _to_dict(message: Message) -> dict[str, Any]:
    if isinstance(message, AssistantMessage):
        out: dict[str, Any] = {"role": "assistant", "content": message.content}
        if message.thinking is not None:
            out["reasoning_content"] = message.thinking
        if message.tool_calls:
            out["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in message.tool_calls
            ]
        return out
    if isinstance(message, ToolMessage):
        return {"role": "tool", "content": message.content, "name": message.name, "tool_call_id": message.call_id}
    return {"role": message.role, "content": message.content}
