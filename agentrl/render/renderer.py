"""The renderer: an episode's messages -> token ids, and sampled ids -> messages.

What comes in: the messages of an episode, as they happen. What goes out: the prompt's ids, a `Chat` that extends them
turn by turn (`chat.py`), and the messages read from sampled ids. Sampled ids are never decoded and encoded again. Knows
no environment and no engine.

Special tokens come from the template and from the parser's own markup alone. Where a message holds a special token's
string, the string is cut before rendering and the pieces are encoded one by one (`special.py`): ordinary tokens that
spell the same text. Harmless text is encoded in one go with the template around it. Both are deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage
from agentrl.render.chat import Chat, History
from agentrl.render.parsers import ToolParser
from agentrl.render.probe import check_renderer, why_no_calls
from agentrl.render.rules import Rule, Template
from agentrl.render.skeleton import Said, Skeleton
from agentrl.render.special import unused_mark
from agentrl.render.tokenizer import Tokenizer
from agentrl.trajectory import IntArray


class Renderer:
    """Renders for one tokenizer and one family of tool calls.

    Attributes:
        stop_ids: What sampling must stop at.
        no_tools: Why agents with tools cannot be rendered, or None where they can.

    Raises:
        ConfigError: the chat template cannot be followed turn by turn, or lets special tokens in.
    """

    def __init__(self, tokenizer: Tokenizer, parser: ToolParser) -> None:
        self.tokenizer = tokenizer
        self.parser = parser
        self.template = Template(tokenizer)
        endings = (self.template.said_ending, self.template.call_ending)
        names = dict.fromkeys(name for ending in endings for name in (ending.stop, ending.token))
        own = [tokenizer.special_ids[name] for name in names if any(name == ending.stop for ending in endings)]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((*own, *tokenizer.eos_ids)))
        self._cues: dict[str, list[int]] = {}
        self._opened = self._find_opened()
        self._shows_results = self._find_shows_results()
        self.no_tools = (self.template.no_tools or why_no_calls(self)) if parser.in_templates else None
        check_renderer(self)

    def prompt(self, messages: Sequence[Message], tool_schemas: Sequence[Mapping[str, Any]] = ()) -> IntArray:
        """Ids of a whole chat, ending where the policy begins to speak. [P]

        Raises:
            ConfigError: the template refuses the messages, or there are tools and it does not show them.
        """
        if tool_schemas and self.no_tools is not None:
            raise ConfigError(f"this renderer cannot be used with tools: {self.no_tools}")
        written = self.template.dialect.write(self.as_written(messages))
        (chat, tools), mark = self._guard((written, list(tool_schemas) if self.template.no_tools is None else []))
        return np.array(self._encode(self.tokenizer.chat(chat, tools or None, True), mark), dtype=np.int64)

    def begin(
        self,
        messages: Sequence[Message],
        tool_schemas: Sequence[Mapping[str, Any]] = (),
        history: History = "template",
    ) -> Chat:
        """A chat that grows turn by turn from these messages.

        Args:
            messages: The opening.
            tool_schemas: Of the tools there are.
            history: What to do where the template rewrites what stood before. "template": begin a new segment with what
                the template makes of it, which is what the model is given in use. "append": go on with the stream.

        Raises:
            ConfigError: as `prompt`.
        """
        return Chat(self, messages, tool_schemas, history)

    def as_written(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template is given them: what it has no place for stands in the content, as the policy
        writes it. That is thinking where the template knows none, and calls in a form that no template writes."""
        return [self._as_written(message) for message in messages]

    def parse(self, token_ids: npt.ArrayLike) -> AssistantMessage:
        """Read a sampled action. Never raises."""
        ids: list[int] = np.asarray(token_ids, dtype=np.int64).tolist()
        if ids and (ids[-1] in self.stop_ids):
            ids.pop()
        return self.parser.parse(self.tokenizer.decode(ids))

    def encode_action(self, message: AssistantMessage) -> IntArray:
        """Ids with which the policy would say `message`, ending with the stop token. [C]

        For scripted play and imitation only: sampled actions are never encoded again.
        """
        guarded, mark = self._guard_action(message)
        text = self.parser.format(guarded)
        if self._opened and not text.startswith(self._opened):  # the prompt has opened a thinking block
            text = self.parser.format(guarded.model_copy(update={"thinking": ""}))
        ids = self._encode(text.removeprefix(self._opened), mark)
        return np.array([*ids, self.stop_id(message)], dtype=np.int64)

    def end_id(self, action: AssistantMessage) -> int:
        """The special token that ends this action in a history."""
        return self.tokenizer.special_ids[self.template.ending(action).token]

    def stop_id(self, action: AssistantMessage) -> int:
        """The special token with which the policy ends this action."""
        return self.tokenizer.special_ids[self.template.ending(action).stop]

    def cue(self, text: str) -> list[int]:
        """Ids of the cue to speak with which a rule goes on."""
        if text not in self._cues:
            self._cues[text] = self.tokenizer.encode(text)
        return self._cues[text]

    def continued(self, rule: Rule, tools: bool, new: Sequence[Message]) -> list[int] | None:
        """Ids of new messages after the stand-ins of `rule`, from the cue before them on to the cue after them.

        None: these messages make the template change what stood before them.

        Raises:
            ConfigError: the template refuses them.
        """
        guarded, mark = self._guard(self.template.dialect.write(new))
        text = self.template.render([*rule.head, *guarded], tools)
        return self._encode(text[len(rule.before) :], mark) if text.startswith(rule.before) else None

    def tail(self, said: Said, tools: Sequence[Mapping[str, Any]], answer: Sequence[Message]) -> list[int]:
        """Ids of an answer, after the token that ends an action such as `said`, to the cue."""
        (guarded, schemas), mark = self._guard((self.template.dialect.write(answer), list(tools)))
        return self._encode(self.template.tail(said, schemas, guarded), mark)

    def _as_written(self, message: Message) -> Message:
        if isinstance(message, ToolMessage) and not (self.parser.in_templates or self._shows_results):
            return UserMessage(content=message.content)
        if not isinstance(message, AssistantMessage):
            return message
        placed = AssistantMessage(
            thinking=message.thinking if self.template.dialect.thinking_key else None,
            tool_calls=message.tool_calls if self.parser.in_templates else (),
        )
        if (placed.thinking, placed.tool_calls) == (message.thinking, message.tool_calls):
            return message
        rest = AssistantMessage(
            content=message.content,
            thinking=None if placed.thinking is not None else message.thinking,
            tool_calls=() if placed.tool_calls else message.tool_calls,
        )
        return placed.model_copy(update={"content": self.parser.format(rest)})

    def _find_shows_results(self) -> bool:
        try:
            self.template.rule(Skeleton(("user",)), False, Said(content=True), ("tool",))
        except ConfigError:
            return False
        return True

    def _find_opened(self) -> str:
        """With what the cue begins the policy's own text: an opened thinking block, or nothing."""
        cue = self.template.render(self.template.dialect.write([UserMessage(content="zq")]), False)
        own = self.parser.format(AssistantMessage(content="zq", thinking=""))
        begun = own.partition("</")[0]
        sizes = range(len(begun), 0, -1)
        return next((begun[:n] for n in sizes if begun[:n].strip() and cue.endswith(begun[:n])), "")

    def _guard(self, value: Any) -> tuple[Any, str | None]:
        """Cut special strings in it; the mark between the pieces, or None where nothing was cut."""
        if not self.template.special.found_in(value):
            return value, None
        mark = unused_mark(value)
        return self.template.special.cut(value, mark), mark

    def _guard_action(self, message: AssistantMessage) -> tuple[AssistantMessage, str | None]:
        calls = [(call.name, call.arguments) for call in message.tool_calls]
        (content, thinking, calls), mark = self._guard((message.content, message.thinking, calls))
        if mark is None:
            return message, None
        made = tuple(ToolCall(id=f"call_{i}", name=n, arguments=a) for i, (n, a) in enumerate(calls))
        return AssistantMessage(content=content, thinking=thinking, tool_calls=made), mark

    def _encode(self, text: str, mark: str | None) -> list[int]:
        if mark is None:
            return self.tokenizer.encode(text)
        return [i for piece in text.split(mark) for i in self.tokenizer.encode(piece)]
