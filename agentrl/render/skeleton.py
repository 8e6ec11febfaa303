"""The skeleton of a chat: what a template can tell apart in its history, with stand-ins for every text.

What comes in: messages, as they happen. What goes out: a chat of a few short messages in which the template stands
where it stands in the real one. Turns that look alike stand once, so a skeleton does not grow with its chat, and equal
skeletons are equal values. Knows no template and no tokens.

A template may look at: the roles of the opening; whether an earlier action has text, thinking and calls; who answered
it; and whether that was before or after the last user's message. Turns before it are `past`, later ones `current`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, UserMessage

TOOL = {
    "type": "function",
    "function": {
        "name": "zqtool",
        "description": "zqschemaqz",
        "parameters": {"type": "object", "properties": {"zq": {"type": "string"}}},
    },
}
THINKING_TAGS = ("<think>", "</think>", "<thinking>", "</thinking>")

Replies = tuple[str, ...]  # roles of an environment's messages; neighbours of one role stand once


@dataclass(frozen=True, slots=True)
class Said:
    """What a template can tell apart in an action."""

    content: bool = False
    thinking: Literal["none", "blank", "text"] = "none"
    calls: int = 0  # 2: two or more
    tags: tuple[str, ...] = ()  # of thinking, standing in the content as text

    @classmethod
    def of(cls, action: AssistantMessage, tags: Sequence[str] = THINKING_TAGS) -> Said:
        """Of an action; `tags`: what the template may take for the bounds of thinking, standing in the content."""
        thinking = action.thinking
        kind: Literal["none", "blank", "text"] = "none" if thinking is None else "text" if thinking.strip() else "blank"
        return cls(
            bool(action.content.strip()),
            kind,
            min(len(action.tool_calls), 2),
            tuple(tag for tag in tags if tag in action.content),
        )

    def plain(self) -> Said:
        """The simplest action that is answered in the same way."""
        return Said(calls=1) if self.calls else Said(content=True)

    def words(self) -> list[str]:
        """The stand-ins that `message` holds and a template should show, calls last."""
        thought = ["zqthoughtqz"] if self.thinking == "text" else []
        return [*thought, *(["zqsaidqz"] if self.content else []), *(f"zqcall{i}qz" for i in range(self.calls))]

    def message(self) -> AssistantMessage:
        calls = tuple(
            ToolCall(id=f"call0000{i}", name="zqtool", arguments={"zq": f"zqcall{i}qz"}) for i in range(self.calls)
        )
        thinking = {"none": None, "blank": "", "text": "zqthoughtqz"}[self.thinking]
        content = " ".join(["zqsaidqz", *self.tags]) if self.content else ""
        return AssistantMessage(content=content, thinking=thinking, tool_calls=calls)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A chat's shape. Ends where the policy speaks."""

    opening: Replies
    past: tuple[tuple[Said, Replies], ...] = ()
    current: tuple[tuple[Said, Replies], ...] = ()

    @classmethod
    def of(cls, messages: Sequence[Message], tags: Sequence[str] = THINKING_TAGS) -> Skeleton:
        """Of a whole chat."""
        spoken = [i for i, message in enumerate(messages) if isinstance(message, AssistantMessage)]
        out = cls(roles(messages[: spoken[0]] if spoken else messages))
        for at, end in itertools.pairwise([*spoken, len(messages)]):
            action = messages[at]
            assert isinstance(action, AssistantMessage)
            out = out.after(Said.of(action, tags), roles(messages[at + 1 : end]))
        return out

    def after(self, said: Said, replies: Replies) -> Skeleton:
        """With one more turn, which stands last; a turn like it stands no longer where it stood."""
        turn = (said, replies)
        current = (*(t for t in self.current if t != turn), turn)
        if "user" not in replies:
            return Skeleton(self.opening, self.past, current)
        return Skeleton(self.opening, (*(t for t in self.past if t not in current), *current))

    def messages(self) -> list[Message]:
        out = replies(self.opening, "zqopening")
        for said, roles_ in (*self.past, *self.current):
            out += [said.message(), *replies(roles_, "zqearlier")]
        return out


def roles(messages: Sequence[Message]) -> Replies:
    """The roles of messages; neighbours of one role stand once."""
    return tuple(role for role, _ in itertools.groupby(message.role for message in messages))


def replies(roles_: Replies, word: str) -> list[Message]:
    """Messages with these roles and stand-ins `{word}0qz`, `{word}1qz`, ..."""
    kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}
    return [
        ToolMessage(content=f"{word}{i}qz", name="zqtool", call_id="call00000")
        if role == "tool"
        else kinds[role](content=f"{word}{i}qz")
        for i, role in enumerate(roles_)
    ]
