from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import ConfigError, MissingDependencyError
from agentrl.messages import to_dicts
from agentrl.render import ByteTokenizer, HFTokenizer, Tokenizer
from agentrl.render.special import SpecialStrings, unused_mark
from agentrl.render.tiny_tokenizer import MAX_TOKEN_BYTES, train_tokenizer
from tests.render.chats import SCHEMA, SPECIAL, demonstrations, episodes, harmless, hostile

KINDS = ("byte", "tiny", "bytes alone")


@pytest.fixture(scope="module")
def tokenizers(tiny: HFTokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    bytes_alone = train_tokenizer(demonstrations(), 0, tmp_path_factory.mktemp("bytes"))
    return {"byte": ByteTokenizer(), "tiny": tiny, "bytes alone": bytes_alone}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(text=st.text() | hostile)
def test_text_comes_back_byte_for_byte(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text
    assert all(0 <= i < tokenizer.vocab_size for i in tokenizer.encode(text))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(text=st.text() | hostile, calm=harmless)
def test_plain_text_has_no_special_tokens(tokenizers, kind, text, calm):
    tokenizer = tokenizers[kind]
    assert not set(tokenizer.encode_plain(text)) & set(tokenizer.special_ids.values())
    assert tokenizer.encode_plain(calm) == tokenizer.encode(calm)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 1000)))
def test_any_ids_are_decoded(tokenizers, kind, ids):
    assert isinstance(tokenizers[kind].decode(ids), str)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert set(tokenizer.special_ids) == set(SPECIAL)
    for text, token_id in tokenizer.special_ids.items():
        assert tokenizer.encode(f"a{text}b")[1] == token_id
        assert tokenizer.token(token_id) == text
        assert tokenizer.token(token_id) in tokenizer.decode([97, token_id])
    assert tokenizer.eos_ids == (tokenizer.special_ids["<|im_end|>"],)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(episode=episodes(hostile, thinking=True), last=st.booleans())
def test_every_tokenizer_that_ships_renders_the_same_chat(tokenizers, kind, episode, last):
    opening, turns = episode
    messages = to_dicts([*opening, *(m for action, answer in turns for m in (action, *answer))])
    wanted = ByteTokenizer().chat(messages, [SCHEMA], last)
    assert tokenizers[kind].chat(messages, [SCHEMA], last) == wanted


def test_the_chat_template_by_hand():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+3?"},
        {
            "role": "assistant",
            "content": "Hm.",
            "reasoning_content": "add",
            "tool_calls": [{"function": {"name": "calculator", "arguments": {"expression": "2+3"}}}],
        },
        {"role": "tool", "content": "5"},
        {"role": "tool", "content": "five"},
        {"role": "assistant", "content": "5"},
    ]
    assert ByteTokenizer().chat(messages, [SCHEMA], False) == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n"
        + json.dumps(SCHEMA["function"])
        + '\nTo call one, write:\n<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n2+3?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nadd\n</think>\n\nHm.\n<tool_call>\n"
        '{"name": "calculator", "arguments": {"expression": "2+3"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n5\n</tool_response>\n<tool_response>\nfive\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n5<|im_end|>\n"
    )


@settings(max_examples=200, deadline=None)
@given(text=st.text("0123456789 +*.=ab\n", max_size=30))
def test_every_digit_is_a_token_of_its_own(tiny, text):
    pieces = [tiny.token(i) for i in tiny.encode(text)]
    assert all(len(piece) == 1 for piece in pieces if any(c.isdigit() for c in piece))


@settings(max_examples=200, deadline=None)
@given(before=harmless, after=harmless)
def test_nothing_is_merged_across_a_newline(tiny, before, after):
    assert tiny.encode(f"{before}\n{after}") == tiny.encode(f"{before}\n") + tiny.encode(after)


def test_nothing_is_merged_across_a_newline_that_training_saw(tiny):
    text = demonstrations()[5]
    lines = text.splitlines(keepends=True)
    assert len(lines) > 5
    assert [i for line in lines for i in tiny.encode(line)] == tiny.encode(text)


def test_merges_cross_words_and_stay_short(tiny):
    pieces = [tiny.token(i) for i in range(tiny.vocab_size) if tiny.token(i) not in tiny.special_ids]
    assert any(" " in piece.strip() for piece in pieces)
    assert 12 < max(len(piece.encode()) for piece in pieces) <= MAX_TOKEN_BYTES
    assert not any("im_" in piece or "tool_call>" in piece for piece in pieces)  # special tokens were not learnt
    action = demonstrations()[3].split("assistant\n")[1]
    assert len(tiny.encode(action)) < len(action) / 4


def test_no_token_is_longer_than_allowed(tmp_path):
    line = "".join(chr(code) for code in range(32, 127) if not chr(code).isdigit())
    assert len(line) > MAX_TOKEN_BYTES
    tokenizer = train_tokenizer([line] * 9, 500, tmp_path)
    longest = max(len(tokenizer.token(i)) for i in tokenizer.encode(line))
    assert MAX_TOKEN_BYTES / 2 < longest <= MAX_TOKEN_BYTES


def test_equal_texts_give_equal_tokenizers(tiny, tmp_path):
    train_tokenizer(iter(demonstrations()), 200, tmp_path)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (Path(tiny.path) / name).read_bytes()


def test_no_more_merges_than_asked(tokenizers, tmp_path):
    bare = tokenizers["bytes alone"].vocab_size
    assert bare == 256 + len(SPECIAL)
    assert train_tokenizer(demonstrations(), 7, tmp_path).vocab_size == bare + 7
    with pytest.raises(ConfigError, match="merges is -1"):
        train_tokenizer([], -1, tmp_path)


def test_a_checkpoint_folder_gives_the_same_ids(tiny, tmp_path):
    """Beside a model's config, transformers may pick a tokenizer class by the model's type."""
    from transformers import AutoTokenizer, Qwen3Config

    tiny.save(tmp_path)
    Qwen3Config().save_pretrained(tmp_path)
    text = demonstrations()[7] + "1234 é漢 <think>\n\n"
    assert HFTokenizer(tmp_path).encode(text) == tiny.encode(text)
    assert AutoTokenizer.from_pretrained(tmp_path).encode(text) == tiny.encode(text)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|im_end|>"


def edited(tiny: HFTokenizer, folder: Path, **changes: object) -> Path:
    """A copy of the tiny tokenizer with changes to its tokenizer.json."""
    shutil.copytree(tiny.path, folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_a_stored_truncation_is_not_used(tiny, tmp_path):
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    tokenizer = HFTokenizer(edited(tiny, tmp_path / "t", truncation=truncation))
    assert tokenizer.encode("0123456789") == tiny.encode("0123456789")


def test_added_blanks_are_ordinary_text(tiny, tmp_path):
    added = json.loads((Path(tiny.path) / "tokenizer.json").read_text())["added_tokens"]
    blanks = added[-1] | {"id": tiny.vocab_size, "content": "    "}
    tokenizer = HFTokenizer(edited(tiny, tmp_path / "t", added_tokens=[*added, blanks]))
    assert tokenizer.special_ids == tiny.special_ids
    assert tokenizer.encode_plain("a    b") == tokenizer.encode("a    b")
    assert tokenizer.vocab_size == tiny.vocab_size + 1


def test_the_models_own_end_and_the_end_of_turn_both_stop(tiny, tmp_path):
    folder = edited(tiny, tmp_path / "t")
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token": "<|endoftext|>"}))
    ids = tiny.special_ids
    assert HFTokenizer(folder).eos_ids == (ids["<|endoftext|>"], ids["<|im_end|>"])


@pytest.mark.parametrize("path", ["/no/such/folder", "no-such-model", "agentrl/no-such-folder", "a/b/c", ""])
def test_a_missing_path_says_what_to_give(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agentrl").mkdir()
    with pytest.raises(ConfigError, match=r"tokenizer.*give a folder that holds tokenizer\.json"):
        HFTokenizer(path)


def test_a_broken_folder_is_a_config_error(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="no usable tokenizer"):
        HFTokenizer(tmp_path)


def test_a_tokenizer_without_a_chat_template_is_a_config_error(tiny, tmp_path):
    folder = edited(tiny, tmp_path / "t")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="has no chat template"):
        HFTokenizer(folder)


def test_without_transformers_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"agentrl\[train\]"):
        HFTokenizer(tmp_path)
    with pytest.raises(MissingDependencyError, match=r"agentrl\[train\]"):
        train_tokenizer([], 1, tmp_path)


def test_importing_and_rendering_bytes_loads_no_backend():
    code = (
        "import sys; from agentrl.render import *; from agentrl.messages import UserMessage; "
        "Renderer(ByteTokenizer(), HermesParser()).prompt([UserMessage(content='hi')]); "
        "bad = {'torch', 'transformers', 'tokenizers', 'vllm'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=400)


@settings(max_examples=300, deadline=None)
@given(text=hostile, strings=st.sampled_from([SPECIAL, ("<a>", "a><", "<a><b>"), ("aa", "aaa"), ()]))
def test_no_piece_holds_a_special_string(text, strings):
    special = SpecialStrings(strings)
    text = text + "<a><a><b>aaaaa"
    pieces = special.pieces(text)
    mark = unused_mark(text)
    assert "".join(pieces) == text
    assert not any(s in piece for s in strings for piece in pieces)
    assert special.cut(text, mark).split(mark) == pieces
    assert special.found_in({"k": [text]}) == any(s in text for s in strings)


def test_marks_are_new_to_the_text():
    assert unused_mark(["zqcut0qz", {"zqcut1qz": 1}]) not in ("zqcut0qz", "zqcut1qz")
