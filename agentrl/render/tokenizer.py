"""Tokenizers: text <-> token ids, and chats -> text by the tokenizer's own template.

What comes in: text, messages in the OpenAI form, tool schemas. What goes out: token ids and text. `ByteTokenizer`
needs no download and no backend; `HFTokenizer` wraps a Hugging Face tokenizer. Knows nothing of turns, actions or
parsers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import jinja2

from agentrl.errors import ConfigError, MissingDependencyError
from agentrl.render.special import SpecialStrings

END_OF_TURN = "<|im_end|>"
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", END_OF_TURN)
MARKUP_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")

Chat = Sequence[Mapping[str, Any]]


class Tokenizer(Protocol):
    """What the renderer asks of a tokenizer."""

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Every string that `encode` reads as one special token, and its id."""
        ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids with which the policy ends its turn."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids; every id is below it."""
        ...

    def encode(self, text: str) -> list[int]:
        """Encode template text: special tokens in it are recognised. Adds nothing before or after.

        Never raises: half of a surrogate pair becomes "?".
        """
        ...

    def encode_plain(self, text: str) -> list[int]:
        """Encode untrusted text: special strings in it become ordinary tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens kept. Never raises: broken UTF-8 is replaced, unknown ids are left out."""
        ...

    def token(self, token_id: int) -> str:
        """Text of one token, for showing; a part of a character shows as U+FFFD."""
        ...

    def chat(self, messages: Chat, tools: Chat | None, add_generation_prompt: bool) -> str:
        """Render messages by the chat template.

        Raises:
            ConfigError: the template refuses these messages.
        """
        ...


class ByteTokenizer:
    """One token a byte (id = byte value), then the special tokens. Pure Python; renders ChatML."""

    def __init__(self) -> None:
        names = CONTROL_TOKENS + MARKUP_TOKENS
        self.special_ids: Mapping[str, int] = {name: 256 + i for i, name in enumerate(names)}
        self.eos_ids = (self.special_ids[END_OF_TURN],)
        self.vocab_size = 256 + len(names)
        self._bytes = [bytes([i]) for i in range(256)] + [name.encode() for name in names]
        self._split = re.compile(f"({'|'.join(map(re.escape, names))})").split

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, piece in enumerate(self._split(text)):
            if i % 2:  # `split` puts what the group matched at odd places
                ids.append(self.special_ids[piece])
            else:
                ids.extend(piece.encode(errors="replace"))
        return ids

    def encode_plain(self, text: str) -> list[int]:
        return list(text.encode(errors="replace"))

    def decode(self, ids: Sequence[int]) -> str:
        table, size = self._bytes, self.vocab_size
        return b"".join([table[i] for i in ids if 0 <= i < size]).decode(errors="replace")

    def token(self, token_id: int) -> str:
        return self.decode([token_id])

    def chat(self, messages: Chat, tools: Chat | None, add_generation_prompt: bool) -> str:
        return _chatml().render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)


class HFTokenizer:
    """A Hugging Face fast tokenizer with its own chat template.

    Args:
        path: A folder with tokenizer files, or a hub id.

    Raises:
        MissingDependencyError: transformers is not installed.
        ConfigError: there is no usable tokenizer at `path`, or it has no chat template.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._tokenizer = _load(self.path)
        self._backend = self._tokenizer.backend_tokenizer
        self._backend.no_truncation()  # a tokenizer file may carry either
        self._backend.no_padding()
        # Some tokenizers add runs of blanks as tokens of their own: these are ordinary text, not markup.
        self.special_ids: Mapping[str, int] = {
            text: i for text, i in self._tokenizer.get_added_vocab().items() if len(text) > 1 and not text.isspace()
        }
        self._special = SpecialStrings(self.special_ids)
        ends = (self._tokenizer.eos_token_id, self.special_ids.get(END_OF_TURN))
        self.eos_ids = tuple(dict.fromkeys(i for i in ends if i is not None))
        self.vocab_size = 1 + max(self._tokenizer.get_vocab().values())

    def encode(self, text: str) -> list[int]:
        text = text.encode(errors="replace").decode()  # the backend refuses half surrogate pairs
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_plain(self, text: str) -> list[int]:
        return [i for piece in self._special.pieces(text) for i in self.encode(piece)]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._backend.decode(ids, skip_special_tokens=False)
        return text

    def token(self, token_id: int) -> str:
        return self.decode([token_id])

    def chat(self, messages: Chat, tools: Chat | None, add_generation_prompt: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False
            )
        except Exception as error:  # a template is a program: it raises what its author did not think of
            roles = ", ".join(m["role"] for m in messages)
            raise ConfigError(
                f"the chat template of {self.path} refuses the messages ({roles}): {error or type(error).__name__}"
            ) from error
        return text

    def vocabulary(self) -> Mapping[str, int]:
        """Every token as the tokenizer spells it, and its id."""
        tokens: dict[str, int] = self._tokenizer.get_vocab()
        return tokens

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files and template into `folder`, as beside a checkpoint."""
        self._tokenizer.save_pretrained(folder)


def chatml_source() -> str:
    """The text of the ChatML template that ships."""
    return resources.files("agentrl.render").joinpath("chatml.jinja").read_text(encoding="utf-8")


@cache
def _chatml() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["tojson"] = json.JSONEncoder(ensure_ascii=False).encode  # jinja2's own escapes HTML
    return environment.from_string(chatml_source())


def _load(path: str) -> Any:
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependencyError(
            f"the tokenizer {path!r} needs transformers, which is not installed: pip install 'agentrl[train]'"
        ) from error
    wanted = 'give a folder that holds tokenizer.json and tokenizer_config.json, or a hub id such as "owner/model"'
    hub_id = re.fullmatch(r"\w[\w.-]*/[\w.-]+", path) and not Path(path).parent.exists()
    if not Path(path).exists() and not hub_id:
        raise ConfigError(f"there is no tokenizer at {path!r}: no such folder; {wanted}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # the loader raises bare exceptions for broken files
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"there is no usable tokenizer at {path!r} ({first_line}); {wanted}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(f"the tokenizer at {path!r} is a {type(tokenizer).__name__} without tokenizer.json; {wanted}")
    if not tokenizer.chat_template:
        raise ConfigError(
            f"the tokenizer at {path!r} has no chat template: use the instruction-tuned model's tokenizer, or put a "
            "chat_template.jinja into the folder"
        )
    return tokenizer
