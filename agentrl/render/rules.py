"""What a chat template does at an event: an action and its answer are added to a chat of a given shape.

What comes in: a skeleton, the shape of the action and the roles that answer it. What goes out: a `Rule`: whether the
template leaves what stood before as it was and shows all of the action, and where an action ends. A rule is found by
rendering stand-ins, once per shape, so that no real chat need be rendered whole to know it. Knows no episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message
from agentrl.render.dialect import Dialect, find_dialect
from agentrl.render.skeleton import THINKING_TAGS, TOOL, Replies, Said, Skeleton, replies
from agentrl.render.special import SpecialStrings, shared_length
from agentrl.render.tokenizer import Tokenizer

Event = Literal["appended", "rewritten", "unsaid"]
_MOST_RULES = 10_000  # kept at once
_START = Skeleton(("user",))


@dataclass(frozen=True, slots=True)
class Ending:
    """The special tokens that end an action of one kind."""

    token: str  # where more follows: it stands in every history
    stop: str  # where nothing follows yet: what the policy writes. Mostly the same one


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at an event.

    `appended`: what stood before stays and the action is shown. `rewritten`: what stood before changes, or a part of
    the action (its thinking, say) is left out. `unsaid`: the template refuses such an action; it can answer it though.
    """

    event: Event
    head: list[dict[str, Any]]  # the history's stand-ins, as the template reads them
    before: str  # their text, up to the special token with which the cue for the policy to speak begins
    cue: str | None  # the rest, or None where it holds text of the history too, so that tokens cannot be compared


class Template:
    """A tokenizer's chat template, and its rules.

    Raises:
        ConfigError: the template cannot show a chat of a user and an assistant, or does not end an assistant's turn
            with a special token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.special = SpecialStrings(tokenizer.special_ids)
        self.dialect: Dialect = find_dialect(tokenizer)
        self.tags = tuple(tag for tag in THINKING_TAGS if not self.special.found_in(tag))  # the others are cut in texts
        self.said_ending = self._find_ending(Said(content=True), "user", ())
        self.no_tools = self._why_no_tools()
        self.call_ending = self.said_ending if self.no_tools else self._find_call_ending()
        self._rules: dict[tuple[Skeleton, bool, Said, Replies], Rule] = {}

    def render(self, chat: list[dict[str, Any]], tools: bool, cue: bool = True) -> str:
        """Text of a chat written in the dialect, with a stand-in for its tools."""
        return self.tokenizer.chat(chat, [TOOL] if tools else None, cue)

    def ending(self, action: AssistantMessage) -> Ending:
        """What ends this action."""
        return self.call_ending if action.tool_calls else self.said_ending

    def rule(self, skeleton: Skeleton, tools: bool, said: Said, answer: Replies, *, anew: bool = False) -> Rule:
        """What happens when `said` and `answer` are added to a chat of this shape.

        Args:
            anew: Look again, whatever was found before.

        Raises:
            ConfigError: the template does not show such an answer.
        """
        key = (skeleton, tools, said, answer)
        if anew or key not in self._rules:
            if len(self._rules) >= _MOST_RULES:
                self._rules.clear()
            self._rules[key] = self._find_rule(*key)
        return self._rules[key]

    def tail(self, said: Said, tools: list[Any], new: list[dict[str, Any]]) -> str:
        """What the template writes after an action's ending: messages written in the dialect, and the cue.

        The action is the plainest of its kind, at the beginning of a chat: its text and what came before do not matter.
        """
        plain = self.plainest(said)
        chat = self.dialect.write([*_START.messages(), plain.message()])
        _, _, text = self.tokenizer.chat([*chat, *new], tools or None, True).rpartition(plain.words()[-1])
        end = (self.call_ending if plain.calls else self.said_ending).token
        return text.partition(end)[2] if end in text else text

    def _find_rule(self, skeleton: Skeleton, tools: bool, said: Said, answer: Replies) -> Rule:
        head = self.dialect.write(skeleton.messages())
        text, done = self.render(head, tools), self.render(head, tools, cue=False)
        cut = self.special.last(text, shared_length(text, done))
        whole = "zqopening" in text[cut:] or "zqearlier" in text[cut:]
        before, cue = (text, None) if whole else (text[:cut], text[cut:])
        new, marks = replies(answer, "zqreply"), [f"zqreply{i}qz" for i in range(len(answer))]
        try:
            full = self._with(head, said, new, tools)
        except ConfigError:
            if said in (said.plain(), Said(content=True)):
                raise
            self._refuse_unless_shown(self._with(head, self.plainest(said), new, tools), marks, answer)
            return Rule("unsaid", head, before, cue)
        self._refuse_unless_shown(full, marks, answer)
        own = full[len(before) :].partition(marks[0] if marks else "\0")[0]
        shown = full.startswith(before) and all(word in own for word in said.words())
        shown = shown and "zqschemaqz" not in full[len(before) :]  # tools that stand anew at each question
        if not shown and said.calls and self.no_tools:
            return Rule("unsaid", head, before, cue)  # the policy tried to call: nobody promised that it could
        return Rule("appended" if shown else "rewritten", head, before, cue)

    def plainest(self, said: Said) -> Said:
        """The simplest action that is answered in the same way, and that the template can write."""
        return Said(content=True) if self.no_tools else said.plain()

    def _with(self, head: list[dict[str, Any]], said: Said, new: Sequence[Message], tools: bool) -> str:
        return self.render([*head, *self.dialect.write([said.message(), *new])], tools)

    def _refuse_unless_shown(self, text: str, marks: Sequence[str], answer: Replies) -> None:
        at = 0
        for mark, role in zip(marks, answer, strict=True):
            at = text.find(mark, at)
            if at < 0:
                raise ConfigError(
                    f"the chat template does not show a message of role {role!r} where it stands after the policy's "
                    f"action (the answer's roles: {', '.join(answer)}): the policy would not see it. Use a template "
                    "that does, or an environment that answers otherwise"
                )

    def _why_no_tools(self) -> str | None:
        """Why agents with tools cannot use this template, or None where they can."""
        call, result = Said(calls=1), replies(("tool",), "zqreply")
        try:
            text = self._with(self.dialect.write(_START.messages()), call, result, True)
        except ConfigError as error:
            return str(error)
        if "zqcall0qz" not in text:
            return "the chat template does not show tool calls: the policy would not see what it called"
        if "zqreply0qz" not in text:
            return "the chat template does not show tool results: the policy would not see them"
        return None

    def _find_call_ending(self) -> Ending:
        """Of an action with two calls where the template takes two: what stands between them ends no action."""
        try:
            return self._find_ending(Said(calls=2), "tool", self._inner(Said(calls=2)))
        except ConfigError:
            return self._find_ending(Said(calls=1), "tool", self._inner(Said(calls=1)))

    def _inner(self, said: Said) -> tuple[str, ...]:
        words = said.words()
        text = self._with(self.dialect.write(_START.messages()), said, [], False)
        inside = text[text.find(words[0]) : text.rfind(words[-1])]
        return tuple(s for s in self.special.strings if s in inside)

    def _find_ending(self, said: Said, role: str, inner: Sequence[str]) -> Ending:
        """The ending of an action such as `said`, answered by `role`; `inner` strings stand within such an action.

        Text that follows the action whether or not it is answered belongs to the action; its last special token is the
        ending. Where nothing does, the answer's first special token is.
        """
        tools, head = bool(said.calls), self.dialect.write(_START.messages())
        last = said.words()[-1]
        alone = self.render([*head, *self.dialect.write([said.message()])], tools, cue=False).rpartition(last)
        answered = self._with(head, said, replies((role,), "zqreply"), tools).rpartition(last)
        if not alone[1] or not answered[1]:
            raise ConfigError("the chat template leaves an earlier assistant turn out, so a chat cannot be extended")
        own, after = alone[2], answered[2].partition("zqreply0qz")[0]
        within = [s for s in self.special.all_in(after[: shared_length(own, after)]) if s not in inner]
        token = next(iter(within[-1:] or (s for s in self.special.all_in(after) if s not in inner)), None)
        if token is None or (not said.calls and self._words_before(token, after)):
            raise ConfigError(
                f"the chat template ends the assistant's turn with {after[:40]!r}, not with a special token: sampling "
                "could not stop there. Use a chat template that ends turns with a special token, as ChatML does with "
                "<|im_end|>"
            )
        stops = [s for s in self.special.all_in(own) if s not in inner]
        return Ending(token, token if within or not stops else stops[0])

    def _words_before(self, token: str, text: str) -> bool:
        return any(piece.strip() for piece in self.special.between(text[: text.index(token)]))
