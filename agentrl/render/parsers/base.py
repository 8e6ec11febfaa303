"""What every family's parser does: thinking blocks, text around calls, limits, errors for the model.

What comes in: the decoded completion, its end-of-turn token taken off. What goes out: an `AssistantMessage`. A family
says where its calls begin and reads one place; the loop around it is here, and so is what may be in a call. Reading
takes time linear in the text. Knows nothing of tokens or of which tools there are.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from agentrl.messages import AssistantMessage, ToolCall
from agentrl.render.parsers.values import Unreadable, check_arguments, check_object, clean

MAX_CALLS = 32  # of one turn
MAX_CALL_CHARS = 100_000
MAX_SHOWN = 100  # characters of a name that could not be used
_AROUND_WORDS = " \t\"'`"


class ToolParser(Protocol):
    """Reads and writes the assistant's turn in one family's format."""

    @property
    def in_templates(self) -> bool:
        """Whether there are chat templates that write calls so. If not, a template must be given calls as content."""
        ...

    def parse(self, text: str) -> AssistantMessage:
        """Read an action. Never raises."""
        ...

    def format(self, message: AssistantMessage) -> str:
        """Write an action as the family's chat templates do, without the end-of-turn token."""
        ...


class Tags(NamedTuple):
    """The tags around a thinking block, and the blanks that the family writes inside and after them."""

    open: str
    close: str
    inside: str = "\n"
    after: str = "\n\n"


THINK = Tags("<think>", "</think>")


class Calls:
    """The calls of one turn, in order, checked and numbered.

    Args:
        wanted: how this family writes a call, for errors.
        id_format: of the ids, with the call's number.
    """

    def __init__(self, wanted: str, id_format: str) -> None:
        self.done: list[ToolCall] = []
        self.overflown = False
        self._wanted, self._id_format = wanted, id_format

    def add(self, name: str, arguments: Any, *, chars: int, call_id: str | None = None) -> None:
        """Keep a call that was read, or refuse it for what is in it. `call_id` is used if no other call has it."""
        try:
            if chars > MAX_CALL_CHARS:
                raise Unreadable(f"it has {chars} characters, more than {MAX_CALL_CHARS}")
            check_arguments(name, arguments)
        except Unreadable as error:
            self.refuse(error.reason, name)
            return
        if call_id is None or any(call.id == call_id for call in self.done):
            call_id = self._next_id()
        self._keep(ToolCall(id=call_id, name=name, arguments=arguments))

    def add_object(
        self, payload: Any, *, arguments: str, chars: int, ignored: tuple[str, ...] = (), call_id: str | None = None
    ) -> None:
        """Keep or refuse a call that was written as one JSON object; see `check_object`."""
        try:
            name, given = check_object(payload, arguments=arguments, ignored=ignored)
        except Unreadable as error:
            self.refuse(error.reason, error.name)
        else:
            self.add(name, given, chars=chars, call_id=call_id)

    def refuse(self, reason: str, name: str = "") -> None:
        """Keep a call that cannot be read, with the error that tells the model so."""
        self._keep(self._refused(reason, name))

    @property
    def readable(self) -> bool:
        """Whether any call so far can be run."""
        return any(call.error is None for call in self.done)

    def _keep(self, call: ToolCall) -> None:
        if len(self.done) < MAX_CALLS:
            self.done.append(call)
        elif not self.overflown:
            self.overflown = True
            self.done.pop()
            self.done.append(self._refused(f"there are more than {MAX_CALLS} calls in one turn", ""))

    def _refused(self, reason: str, name: str) -> ToolCall:
        error = clean(f"the tool call cannot be read: {reason}. {self._wanted}")
        return ToolCall(id=self._next_id(), name=clean(name)[:MAX_SHOWN], error=error)

    def _next_id(self) -> str:
        return self._id_format.format(len(self.done))


class Family(ABC):
    """One family: subclasses say where calls begin, read one place, and write calls.

    Text around calls and thinking is kept in `content`, without the blanks at its ends. A thinking block that was cut
    runs to the end of the text; one that is closed and not opened was opened in the prompt, and begins with the text,
    unless a call was read before and the closing tag is only mentioned, as a word of a sentence. Calls inside thinking
    are thoughts, not calls.
    """

    opening: ClassVar[str]  # regular expression of linear time: where a call, or several, begin
    wanted: ClassVar[str]  # ends every error
    tags: ClassVar[tuple[Tags, ...]] = (THINK,)  # the first is written, all are read
    id_format: ClassVar[str] = "call_{}"
    in_templates: ClassVar[bool] = True
    gap: ClassVar[str] = "\n"  # between the content and the calls

    _mark: ClassVar[re.Pattern[str]]

    def __init_subclass__(cls) -> None:
        tags = "|".join(re.escape(tag) for pair in cls.tags for tag in (pair.open, pair.close))
        cls._mark = re.compile(f"(?P<tag>{tags})|{cls.opening}")

    def parse(self, text: str) -> AssistantMessage:
        """Read an action. Never raises."""
        text = clean(text)  # half surrogates cannot be held in a message
        closes = {pair.open: pair.close for pair in self.tags}
        calls = Calls(self.wanted, self.id_format)
        content: list[str] = []
        thinking: list[str] = []
        at = 0
        while not calls.overflown and (mark := self._mark.search(text, at)):
            content.append(text[at : mark.start()])
            at, tag = mark.end(), mark["tag"]
            if tag is None and (end := self._text_end(text, mark)) is not None:
                at = end if thinking else self._thinking_end(text, mark.end(), end)
                content.append(text[mark.start() : at])
            elif tag is None:
                at = self._read_one(text, mark, calls, unopened=not thinking)
            elif tag in closes:
                end = text.find(closes[tag], at)
                thinking.append(text[at:] if end < 0 else text[at:end])
                at = len(text) if end < 0 else end + len(closes[tag])
            elif thinking or (calls.readable and _is_mentioned(text, mark)):
                content.append(tag)
            else:
                thinking, content = [text[: mark.start()]], []
                calls = Calls(self.wanted, self.id_format)
        if not calls.overflown:
            content.append(text[at:])
        return AssistantMessage(
            content="".join(content).strip(),
            tool_calls=tuple(calls.done),
            thinking="\n".join(part.strip() for part in thinking) if thinking else None,
        )

    def format(self, message: AssistantMessage) -> str:
        """Write an action as the family's chat templates do, without the end-of-turn token."""
        parts = [message.content] if message.content else []
        if message.tool_calls:
            parts.append(self._write(message.tool_calls))
        body = self.gap.join(parts)
        if message.thinking is None:
            return body
        tags = self.tags[0]
        return f"{tags.open}{tags.inside}{message.thinking}{tags.inside}{tags.close}{tags.after}{body}"

    def _read_one(self, text: str, mark: re.Match[str], calls: Calls, *, unopened: bool) -> int:
        """Read at `mark`; what cannot be read does not swallow the end of thinking that the prompt opened."""
        before = len(calls.done)
        at = self._read(text, mark, calls)
        if unopened and all(call.error for call in calls.done[before:]):
            return self._thinking_end(text, mark.end(), at)
        return at

    def _thinking_end(self, text: str, start: int, end: int) -> int:
        """Where the first tag that closes thinking stands between `start` and `end`; `end` if none does."""
        ends = (text.find(pair.close, start, end) for pair in self.tags)
        return min((found for found in ends if found >= 0), default=end)

    def _text_end(self, text: str, mark: re.Match[str]) -> int | None:
        """Where what begins at `mark` ends if it is text, calls that are quoted in it included; None: it is a call."""
        return None

    @abstractmethod
    def _read(self, text: str, mark: re.Match[str], calls: Calls) -> int:
        """Read what begins at `mark` into `calls`; return where reading goes on."""

    @abstractmethod
    def _write(self, calls: Sequence[ToolCall]) -> str:
        """All calls of a turn, at least one."""


def _is_mentioned(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag stands as a word in its line, between blanks or quotes."""
    around = text[max(0, tag.start() - 1) : tag.start()], text[tag.end() : tag.end() + 1]
    return all(side and side in _AROUND_WORDS for side in around)
