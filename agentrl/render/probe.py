"""Proves, once, that a renderer follows its chat template turn by turn.

What comes in: a renderer. What goes out: nothing, or a `ConfigError` that says what the template does. Probe chats
(calls, thinking, several results in a row, follow-ups, many turns) are rendered in one go and turn by turn: where a
turn is called exact the ids must be equal, and elsewhere what was appended must be what the template writes there.
The same chats with special strings in every text must hold the same special tokens, and the parser must read what it
writes and what the template writes. Knows no environment and no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage
from agentrl.render.skeleton import TOOL, Said, Skeleton, replies
from agentrl.trajectory import IntArray

if TYPE_CHECKING:
    from agentrl.render.renderer import Renderer

_MOST_STRINGS = 64  # some tokenizers have thousands of reserved special tokens
_MANY = 12  # turns of the long chat: a template that looks back a fixed number of messages is found out
Turn = tuple[AssistantMessage, list[Message]]


def check_renderer(renderer: Renderer) -> None:
    """Raise a `ConfigError` unless the renderer follows its template exactly and safely."""
    tools = [TOOL] if renderer.no_tools is None and renderer.parser.in_templates else []
    calls = 0 if not tools else 2 if _takes(renderer, _chat("", None, 2)) else 1
    chats = [_chat("", thinking, calls) for thinking in (None, "hm")]
    for chat in (*chats, *(_long(thinking, calls) for thinking in (None, "hm"))):
        _follow(renderer, chat, tools)
    _refuse_injection(renderer, tools, calls)
    for message in (action for chat in chats for action, _ in chat):
        ids = renderer.encode_action(message)
        if not _alike(renderer.parse(ids), message):
            raise ConfigError(
                f"the parser {type(renderer.parser).__name__} does not read back what it writes with this tokenizer: "
                f"{renderer.tokenizer.decode(ids.tolist())!r}"
            )


def why_no_calls(renderer: Renderer) -> str | None:
    """Why the parser cannot read the calls that the template writes, or None where it can."""
    wanted = Said(calls=1).message()
    template, start = renderer.template, Skeleton(("user",)).messages()
    text = template.render(template.dialect.write([*start, wanted, *replies(("tool",), "zqreply")]), True)
    own = text.rpartition("zqopening0qz")[2].partition("zqreply0qz")[0]
    read = renderer.parser.parse(own).tool_calls
    if [(call.name, call.arguments) for call in read] == [(call.name, call.arguments) for call in wanted.tool_calls]:
        return None
    return (
        f"the chat template writes tool calls otherwise than {type(renderer.parser).__name__} reads them: {own!r}. Use "
        "the parser of the model's family"
    )


def _follow(renderer: Renderer, turns: Sequence[Turn], tools: Sequence[Mapping[str, object]]) -> None:
    messages: list[Message] = [UserMessage(content="What is k0?")]
    chat = renderer.begin(messages, tools)
    stream: list[int] = chat.prompt.tolist()
    for action, answer in turns:
        before = renderer.prompt(messages, tools).tolist()
        messages += [action, *answer]
        try:
            whole = renderer.prompt(messages, tools).tolist()
        except ConfigError:  # the template refuses such a chat: nothing to follow
            return
        sampled = _as_the_template_says(renderer, action, before, whole)
        extension = chat.extend(sampled, action, answer)
        new: list[int] = extension.token_ids.tolist()
        stream = new if extension.rendered == "forked" else [*stream, *sampled.tolist(), *new]
        wrong = stream != whole if extension.rendered in ("exact", "forked") else new != whole[-len(new) :]
        if wrong:
            raise ConfigError(_difference(renderer, whole, stream))


def _as_the_template_says(
    renderer: Renderer, action: AssistantMessage, before: list[int], whole: list[int]
) -> IntArray:
    """The action's ids where the template appends them to `before`, else the parser's."""
    end = renderer.end_id(action)
    if whole[: len(before)] != before or end not in whole[len(before) :]:
        return renderer.encode_action(action)
    return np.array(whole[len(before) : whole.index(end, len(before)) + 1], dtype=np.int64)


def _takes(renderer: Renderer, turns: Sequence[Turn]) -> bool:
    try:
        renderer.prompt([*_flat(turns, "")], [TOOL])
    except ConfigError:
        return False
    return True


def _refuse_injection(renderer: Renderer, tools: Sequence[Mapping[str, object]], calls: int) -> None:
    strings = " ".join(list(renderer.tokenizer.special_ids)[:_MOST_STRINGS])
    special = set(renderer.tokenizer.special_ids.values())
    calm, hostile = (
        [i for i in renderer.prompt([*_flat(_chat(text, None, calls), text)], tools).tolist() if i in special]
        for text in ("", strings)
    )
    if calm != hostile:
        raise ConfigError(
            "the chat template changes the text of messages in a way that lets special tokens in from tool results or "
            "prompts. Use a template that writes content as it is"
        )


def _flat(turns: Sequence[Turn], extra: str) -> Iterator[Message]:
    yield UserMessage(content=f"What is k0?{extra}")
    for action, answer in turns:
        yield action
        yield from answer


def _chat(extra: str, thinking: str | None, calls: int) -> list[Turn]:
    """Turns with all that matters to a template: up to `calls` calls each; `extra` stands in every text not ours."""

    def call(n: int) -> ToolCall:
        return ToolCall(id=f"call0000{n}", name="zqtool", arguments={"zq": f"k{n}{extra}"})

    def result(n: int) -> ToolMessage:
        return ToolMessage(content=f"value {n}{extra}", name="zqtool", call_id=f"call0000{n}")

    user = UserMessage(content=f"And k1?{extra}")
    said = AssistantMessage(content=f"It is 3.{extra}", thinking=thinking)
    if not calls:
        return [(said, [user]), (said.model_copy(update={"thinking": None}), [user]), (said, [user])]
    one = AssistantMessage(tool_calls=(call(0),), thinking=thinking)
    more = AssistantMessage(content=f"More.{extra}", tool_calls=(call(0), call(1))[:calls])
    results: list[Message] = [result(0), result(1)]
    turns: list[Turn] = [(one, [result(0)]), (more, results[:calls]), (said, [user]), (one, [result(0)])]
    return [*turns, (one, [result(0)]), (said, [user])]


def _long(thinking: str | None, calls: int) -> list[Turn]:
    first, *_, last = _chat("", thinking, calls)
    return [*[first] * _MANY, last]


def _alike(read: AssistantMessage, meant: AssistantMessage) -> bool:
    def said(message: AssistantMessage) -> tuple[object, ...]:
        calls = [(call.name, call.arguments, call.error) for call in message.tool_calls]
        return message.content, (message.thinking or "").strip(), calls

    return said(read) == said(meant)


def _difference(renderer: Renderer, full: list[int], grown: list[int]) -> str:
    shorter = min(len(full), len(grown))
    at = next((i for i in range(shorter) if full[i] != grown[i]), shorter)
    decode = renderer.tokenizer.decode
    before, whole, turns = decode(full[max(0, at - 12) : at]), decode(full[at : at + 12]), decode(grown[at : at + 12])
    return (
        f"this chat template cannot be followed turn by turn: after {before!r} it writes {whole!r} when the whole chat "
        f"is rendered and {turns!r} when it grows. It may change earlier turns by how many there are, or by their "
        "words. Use a template that writes a message the same whatever follows it"
    )
