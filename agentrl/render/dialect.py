"""How one chat template wants its messages written: templates read the same facts under different names.

What comes in: a tokenizer, asked by stand-in chats; then messages. What goes out: the dicts that its template reads.
Knows nothing of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message, ToolCall, UserMessage, to_dicts
from agentrl.render.tokenizer import Tokenizer

_THINKING_KEYS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What to write where. The defaults are the OpenAI form."""

    content_parts: bool = False  # content is a list of parts: templates of models that see images
    arguments_json: bool = False  # arguments are text that holds JSON, not an object
    thinking_key: str | None = "reasoning_content"  # None: it knows no thinking, which is then a part of the content

    def write(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as this template reads them."""
        return [self._said(message) for message in to_dicts(tuple(messages))]

    def _said(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.content_parts:
            message["content"] = [{"type": "text", "text": message["content"]}]
        if "reasoning_content" in message and self.thinking_key is not None:
            message[self.thinking_key] = message.pop("reasoning_content")
        if self.arguments_json:
            for call in message.get("tool_calls", ()):
                function = call["function"]
                function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        return message


def find_dialect(tokenizer: Tokenizer) -> Dialect:
    """The first way of writing in which the template shows what it is given.

    Raises:
        ConfigError: the template shows no user's message, however it is written.
    """
    user, called = UserMessage(content="zquserqz"), ToolCall(id="call00000", name="zq", arguments={"zq": "zqcallqz"})
    choices = (Dialect(), Dialect(content_parts=True))
    found = next((d for d in choices if _shows(tokenizer, d, [user], "zquserqz")), None)
    if found is None:
        raise ConfigError("the chat template does not show a user's message: use a chat template that does")
    chat: list[Message] = [user, AssistantMessage(tool_calls=(called,))]
    by_text = replace(found, arguments_json=True)
    if not _shows(tokenizer, found, chat, "zqcallqz") and _shows(tokenizer, by_text, chat, "zqcallqz"):
        found = by_text
    thinkers = (d for d in _thinkers(found) if _shows_thinking(tokenizer, d, user, called))
    in_content = AssistantMessage(content="<think>\nzqthoughtqz\n</think>\n\nzq")
    left_there = _shows(tokenizer, found, [user, in_content, user], "zqthoughtqz")
    return next(thinkers, replace(found, thinking_key=None) if left_there else found)


def _thinkers(dialect: Dialect) -> Iterator[Dialect]:
    return (replace(dialect, thinking_key=key) for key in _THINKING_KEYS)


def _shows_thinking(tokenizer: Tokenizer, dialect: Dialect, user: UserMessage, called: ToolCall) -> bool:
    said = (
        AssistantMessage(content="zq", thinking="zqthoughtqz"),
        AssistantMessage(thinking="zqthoughtqz", tool_calls=(called,)),
    )
    return any(_shows(tokenizer, dialect, [user, action], "zqthoughtqz") for action in said)


def _shows(tokenizer: Tokenizer, dialect: Dialect, messages: Sequence[Message], word: str) -> bool:
    try:
        return word in tokenizer.chat(dialect.write(messages), None, False)
    except ConfigError:
        return False
