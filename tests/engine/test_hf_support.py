"""Which models the embedded engine takes, and what it does to them."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import BertConfig, BertModel, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from agentrl.engine.hf import HFEngine
from agentrl.engine.settings import EngineSettings
from agentrl.errors import ConfigError
from tests.engine.hf_world import prompt, request, tiny_model

MODEL = tiny_model()


def test_models_that_cannot_be_served_are_refused() -> None:
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    windowed = Qwen3Config(
        **small, num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=1
    )
    for model, complaint in (
        (Qwen3ForCausalLM(windowed), 'DynamicSlidingWindowLayer.*use engine.kind = "vllm"'),
        (MistralForCausalLM(MistralConfig(**small, num_key_value_heads=2, sliding_window=8)), "full attention"),
        (BertModel(BertConfig(**small)), 'forward has no logits_to_keep; use engine.kind = "vllm"'),
        (torch.nn.Linear(2, 2), "wants a transformers causal language model, got Linear"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            HFEngine(model, EngineSettings(max_context=64))
    with pytest.raises(ConfigError, match=r"made for 512 positions; set engine.max_context to 512"):
        HFEngine(MODEL, EngineSettings(max_context=513))


async def test_the_owner_of_a_shared_config_is_left_alone_and_rotary_frequencies_stay_exact() -> None:
    config = copy.deepcopy(MODEL.config)
    learner, sampler = Qwen3ForCausalLM(config), Qwen3ForCausalLM(config)
    before = copy.deepcopy(config.to_dict()), config._attn_implementation
    engine = HFEngine(sampler, EngineSettings(max_context=64), dtype=torch.bfloat16)
    assert (learner.config.to_dict(), learner.config._attn_implementation) == before
    assert sampler.lm_head.weight.dtype == torch.bfloat16
    torch.testing.assert_close(sampler.model.rotary_emb.inv_freq, learner.model.rotary_emb.inv_freq, rtol=0, atol=0)
    await engine.start()
    assert len((await engine.complete(request(prompt(5), 9))).token_ids) == 9
    await engine.close()
