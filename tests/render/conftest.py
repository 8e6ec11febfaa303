from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrl.render import ByteTokenizer, HermesParser, HFTokenizer, Renderer
from tests.render.chats import demonstrations

TEMPLATES = Path(__file__).parent / "templates"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    pytest.importorskip("transformers")
    from agentrl.render.tiny_tokenizer import train_tokenizer

    return train_tokenizer(demonstrations(), 200, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def with_template(tiny: HFTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], HFTokenizer]:
    """The tiny tokenizer with another chat template."""

    def make(template: str) -> HFTokenizer:
        folder = tmp_path_factory.mktemp("templated") / "tokenizer"
        shutil.copytree(tiny.path, folder)
        (folder / "chat_template.jinja").write_text(template)
        return HFTokenizer(folder)

    return make


@pytest.fixture(scope="session")
def renderers(tiny: HFTokenizer, with_template: Callable[[str], HFTokenizer]) -> dict[str, Renderer]:
    qwen = {name: with_template((TEMPLATES / f"{name}.jinja").read_text()) for name in ("qwen25", "qwen3")}
    tokenizers = {"byte": ByteTokenizer(), "tiny": tiny, **qwen}
    return {name: Renderer(tokenizer, HermesParser()) for name, tokenizer in tokenizers.items()}
