"""A tiny real Qwen3 for the learner's tests."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 61


def make_model(*, seed: int = 0, tied: bool = False) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.3,  # far from uniform, so that mistakes show
    )
    return Qwen3ForCausalLM(config).eval()


@pytest.fixture
def model() -> Qwen3ForCausalLM:
    return make_model()
