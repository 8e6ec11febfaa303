"""The renderer: an episode's messages -> token ids, append-only.

What comes in: the messages of an episode, as they happen. What goes out: the prompt's ids once, then only the ids that
the environment adds; and the messages read from sampled ids. Sampled ids are never decoded and encoded again. Knows no
environment and no engine.

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
from agentrl.messages import AssistantMessage, Message, ToolCall, to_dicts
from agentrl.render.parser import ToolParser
from agentrl.render.probe import check_renderer
from agentrl.render.special import SpecialStrings, unused_mark
from agentrl.render.tokenizer import Tokenizer
from agentrl.trajectory import IntArray

_STAND_IN = "zqstandinqz"  # content of the assistant's turn that stands for the whole history
_HISTORY = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": _STAND_IN})


class Renderer:
    """Renders for one tokenizer and one family of tool calls.

    Raises:
        ConfigError: the chat template cannot be extended turn by turn, or writes calls otherwise than the parser.
    """

    def __init__(self, tokenizer: Tokenizer, parser: ToolParser) -> None:
        self.tokenizer = tokenizer
        self.parser = parser
        self._special = SpecialStrings(tokenizer.special_ids)
        self.end_of_turn = self._find_end_of_turn()
        self.end_of_turn_id = tokenizer.special_ids[self.end_of_turn]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self.end_of_turn_id, *tokenizer.eos_ids)))
        check_renderer(self)

    def prompt(self, messages: Sequence[Message], tool_schemas: Sequence[Mapping[str, Any]] = ()) -> IntArray:
        """Ids of a whole chat, ending where the policy begins to speak. [P]"""
        chat, tools, mark = self._guard(to_dicts(tuple(messages)), list(tool_schemas))
        return _array(self._encode(self.tokenizer.chat(chat, tools or None, True), mark))

    def extend(self, new_messages: Sequence[Message], *, stopped: bool) -> IntArray:
        """Ids that the environment adds after an action, ending where the policy speaks again. [E]

        Args:
            new_messages: What the environment said, and nothing older. The cost depends on these alone.
            stopped: Whether the action ends with the end-of-turn token (`end_of_turn_id`); if it was cut, or stopped
                at another of `stop_ids`, give False: that token then comes first here.
        """
        new, _, mark = self._guard(to_dicts(tuple(new_messages)), [])
        tail = self._after_stand_in(self.tokenizer.chat([*_HISTORY, *new], None, True))
        ids = self._encode(tail.partition(self.end_of_turn)[2], mark)
        return _array(ids if stopped else [self.end_of_turn_id, *ids])

    def parse(self, token_ids: npt.ArrayLike) -> AssistantMessage:
        """Read a sampled action. Never raises."""
        ids: list[int] = np.asarray(token_ids, dtype=np.int64).tolist()
        if ids and ids[-1] in self.stop_ids:
            ids.pop()
        return self.parser.parse(self.tokenizer.decode(ids))

    def encode_action(self, message: AssistantMessage) -> IntArray:
        """Ids with which the policy would say `message`, ending with the end-of-turn token. [C]

        For scripted play and imitation only: sampled actions are never encoded again.
        """
        guarded, mark = self._guard_action(message)
        return _array([*self._encode(self.parser.format(guarded), mark), self.end_of_turn_id])

    def _find_end_of_turn(self) -> str:
        tail = self._after_stand_in(self.tokenizer.chat(_HISTORY, None, False))
        ends = [string for string in self._special.strings if tail.startswith(string)]
        if ends:
            return max(ends, key=len)
        raise ConfigError(
            f"the chat template ends the assistant's turn with {tail[:40]!r}, not with a special token: sampling could "
            "not stop there. Use a chat template that ends turns with a special token, as ChatML does with <|im_end|>"
        )

    def _after_stand_in(self, text: str) -> str:
        _, found, tail = text.partition(_STAND_IN)
        if not found:
            raise ConfigError("the chat template leaves an earlier assistant turn out, so a chat cannot be extended")
        return tail

    def _guard(
        self, chat: list[dict[str, Any]], tools: list[Any]
    ) -> tuple[list[dict[str, Any]], list[Any], str | None]:
        """Cut special strings in messages and schemas; the mark between the pieces, or None where nothing was cut."""
        if not self._special.found_in(chat) and not self._special.found_in(tools):
            return chat, tools, None
        mark = unused_mark((chat, tools))
        return self._special.cut(chat, mark), self._special.cut(tools, mark), mark

    def _guard_action(self, message: AssistantMessage) -> tuple[AssistantMessage, str | None]:
        calls = [(call.name, call.arguments) for call in message.tool_calls]
        said = (message.content, message.thinking, calls)
        if not self._special.found_in(said):
            return message, None
        mark = unused_mark(said)
        content, thinking, calls = self._special.cut(said, mark)
        made = tuple(ToolCall(id=f"call_{i}", name=n, arguments=a) for i, (n, a) in enumerate(calls))
        return AssistantMessage(content=content, thinking=thinking, tool_calls=made), mark

    def _encode(self, text: str, mark: str | None) -> list[int]:
        if mark is None:
            return self.tokenizer.encode(text)
        return [i for piece in text.split(mark) for i in self.tokenizer.encode(piece)]


def _array(ids: list[int]) -> IntArray:
    return np.array(ids, dtype=np.int64)
