"""The chat templates that TRL ships, each on small tokenizers that know its special tokens.

TRL itself is not imported: the templates are read as files. `PROBLEM` says why there are none.
"""

from __future__ import annotations

import re
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message, ToolMessage, UserMessage
from agentrl.render.renderer import Renderer
from agentrl.render.rules import Template
from agentrl.render.skeleton import Said
from agentrl.render.special import shared_length
from agentrl.render.tokenizer import HFTokenizer
from agentrl.trajectory import IntArray
from tests.render.chats import demonstrations

_SPEC = find_spec("trl")
FOLDER = None if _SPEC is None or _SPEC.origin is None else Path(_SPEC.origin).parent / "chat_templates"
NAMES = [] if FOLDER is None else sorted(path.stem for path in FOLDER.glob("*.jinja"))
PROBLEM = None if NAMES else "TRL's chat templates are not installed: pip install --no-deps trl==1.16.0"

_MARKS = re.compile(
    r"""<\|[^|<>\s']{1,40}\|> | <｜[^｜<>\s]{1,40}｜> | <\|[a-z_]+> | <[a-z_]+\|> | <\|"\|> | </?think> | </?tool_call>
    | </?tool_response>
    | <(?:start|end)_of_(?:turn|utterance|image)> | \[gMASK\] | <sop> | </s> | \[/?INST\] | <image>""",
    re.VERBOSE,
)


@cache
def tokenizer(name: str, merges: int) -> HFTokenizer:
    """A byte-level BPE with this many merges, the template's special tokens and the template; 0: bytes alone."""
    from tokenizers import AddedToken, decoders
    from transformers import PreTrainedTokenizerFast

    from agentrl.render.tiny_tokenizer import _train

    assert FOLDER is not None
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    bpe = _train([*demonstrations(), "\n\n\n" * 9, " \n" * 9, source, source], merges)
    bpe.decoder = decoders.ByteLevel()
    names = dict.fromkeys(["<bos>", "<eos>", *_MARKS.findall(source)])
    bpe.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in names])
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<bos>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )
    made.chat_template = source
    folder = Path(tempfile.mkdtemp()) / name
    made.save_pretrained(folder)
    return HFTokenizer(folder)


class TemplateParser:
    """Writes an action as the template writes it after a user's message, and reads what it once wrote.

    It stands for the parsers of all families: what a real one adds is reading what a policy writes otherwise.
    """

    in_templates = True

    def __init__(self, template: Template) -> None:
        self._template = template
        self._known: dict[str, AssistantMessage] = {}
        for said in (Said(content=True), Said(calls=2), Said(calls=1)):
            self._learn(said.message())

    def parse(self, text: str) -> AssistantMessage:
        whole = text.strip()
        parts = sorted((known for known in self._known if known in whole), key=len)
        return self._known[parts[-1]] if parts else AssistantMessage(content=whole)

    def format(self, message: AssistantMessage) -> str:
        if message.thinking is None or self._template.dialect.thinking_key:
            return self._learn(message)
        text = f"<think>\n{message.thinking}\n</think>\n\n{self._learn(message.model_copy(update={'thinking': None}))}"
        self._known[text.removeprefix("<think>").strip()] = message  # the prompt may have opened the block
        return text

    def _learn(self, message: AssistantMessage) -> str:
        opening: list[Message] = [UserMessage(content="zq")]
        tool = ToolMessage(content="zq", name="zqtool", call_id="call_0")
        answer: Message = tool if message.tool_calls else UserMessage(content="zq")
        try:
            before = self._text(opening, bool(message.tool_calls))
            text = self._text([*opening, message, answer], bool(message.tool_calls))
        except ConfigError:
            return message.content
        cut = shared_length(before, text)
        if cut < len(before):
            cut = self._template.special.last(before, cut)
        own = text[cut:].partition(self._template.ending(message).token)[0]
        self._known[own.strip()] = message
        return own

    def _text(self, messages: list[Message], tools: bool) -> str:
        return self._template.render(self._template.dialect.write(messages), tools)


def as_the_template_says(
    using: Renderer, action: AssistantMessage, before: IntArray, whole: IntArray
) -> IntArray | None:
    """The action's ids if the template appends them to `before` and they hold all of it, else None."""
    new, end = whole[len(before) :], using.end_id(action)
    if not np.array_equal(whole[: len(before)], before) or end not in new:
        return None
    own = new[: new.tolist().index(end) + 1]
    text = using.tokenizer.decode(own.tolist())
    (written,) = using.as_written([action])
    assert isinstance(written, AssistantMessage)
    content, thinking = written.content.strip(), (written.thinking or "").strip()
    shown = text.count("calculator") >= len(action.tool_calls) and content in text
    return own if shown and thinking in text.replace(content, "", 1) else None
