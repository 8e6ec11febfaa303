"""Trains a small byte-level BPE tokenizer, so that a first run needs no download.

What comes in: texts, such as an environment's demonstrations. What goes out: a normal Hugging Face tokenizer folder
with a ChatML template, and the tokenizer loaded from it. Equal texts give equal tokenizers. Knows no model and no
environment.

There is no word-splitting pattern: merges run across blanks and punctuation, up to `MAX_TOKEN_BYTES`, so that
boilerplate becomes few tokens. Two places are never merged across: around a digit (every digit is its own token, so
numbers are spelt alike everywhere), and after a newline (so an action's first token does not depend on the prompt).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError, MissingDependencyError
from agentrl.render.tokenizer import CONTROL_TOKENS, END_OF_TURN, MARKUP_TOKENS, HFTokenizer, chatml_source

MAX_TOKEN_BYTES = 64


def train_tokenizer(texts: Iterable[str], merges: int, folder: Path) -> HFTokenizer:
    """Train on `texts` and save to `folder`.

    Args:
        texts: What to learn merges from; special tokens in them are left alone.
        merges: Most merges to learn; pairs seen once are not merged. 0: bytes alone.
        folder: Made if it is not there. Its tokenizer files are replaced.

    Raises:
        ConfigError: `merges` is negative.
        MissingDependencyError: tokenizers or transformers is not installed.
    """
    if merges < 0:
        raise ConfigError(f"merges is {merges}; give 0 (bytes alone) or more")
    try:
        from tokenizers import AddedToken, decoders
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependencyError(
            "the tiny tokenizer needs tokenizers and transformers: pip install 'agentrl[train]'"
        ) from error
    bpe = _train(texts, merges)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in CONTROL_TOKENS])
    bpe.add_tokens([AddedToken(name, normalized=False, special=False) for name in MARKUP_TOKENS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END_OF_TURN, pad_token=CONTROL_TOKENS[0], clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = chatml_source()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return HFTokenizer(folder)


def _train(texts: Iterable[str], merges: int) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), behavior="merged_with_previous"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + merges,
        min_frequency=2,
        initial_alphabet=alphabet,
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
    )
    bpe.train_from_iterator(_without_special(texts), trainer)
    return bpe


def _without_special(texts: Iterable[str]) -> Iterator[str]:
    split = re.compile("|".join(map(re.escape, CONTROL_TOKENS + MARKUP_TOKENS))).split
    for text in texts:
        yield from filter(None, split(text))
