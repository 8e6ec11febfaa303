"""Log-probs at chosen positions against the model's own full logits."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen3ForCausalLM

from agentrl.errors import ConfigError
from agentrl.learner.predictions import check_head, predict


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_full_forward(model: Qwen3ForCausalLM, temperature: float) -> None:
    ids = torch.randint(0, 61, (3, 17), generator=torch.Generator().manual_seed(1))
    rows, columns = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 16, 5, 3, 4])
    got = predict(model, ids, rows, columns, temperature=temperature)
    every = (model(input_ids=ids).logits / temperature).log_softmax(-1)
    expected = torch.stack([every[r, c - 1, ids[r, c]] for r, c in zip(rows, columns, strict=True)])
    torch.testing.assert_close(got.logprobs, expected, atol=1e-5, rtol=1e-5)
    spread = torch.stack([-(every[r, c - 1].exp() * every[r, c - 1]).sum() for r, c in zip(rows, columns, strict=True)])
    torch.testing.assert_close(got.entropies, spread, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_gradient_of_the_entropy_is_autograds(model: Qwen3ForCausalLM, temperature: float) -> None:
    ids = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(4))
    rows, columns = torch.tensor([0, 0, 1]), torch.tensor([1, 8, 3])
    got = predict(model, ids, rows, columns, temperature=temperature, entropy_gradient=True).entropies
    got.sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    chances = (model(input_ids=ids).logits / temperature).softmax(-1)[rows, columns - 1]
    torch.distributions.Categorical(chances).entropy().sum().backward()
    assert gradients
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(gradients[name], p.grad, atol=1e-4, rtol=1e-3)


def test_the_entropy_has_no_gradient_unless_it_is_asked_for(model: Qwen3ForCausalLM) -> None:
    ids, at = torch.arange(6)[None], torch.tensor([0])
    for asked in (False, True):
        got = predict(model, ids, at, torch.tensor([3]), temperature=1.0, entropy_gradient=asked)
        assert got.entropies.requires_grad is asked
        assert got.logprobs.requires_grad
        with torch.no_grad():
            inside = predict(model, ids, at, torch.tensor([3]), temperature=1.0, entropy_gradient=asked)
        assert not inside.entropies.requires_grad


def test_padding_on_the_right_changes_nothing(model: Qwen3ForCausalLM) -> None:
    ids = torch.randint(0, 61, (1, 9), generator=torch.Generator().manual_seed(2))
    columns = torch.arange(1, 9)
    alone = predict(model, ids, torch.zeros_like(columns), columns, temperature=1.0).logprobs
    for filler in (0, 33):
        padded = torch.full((2, 14), filler)
        padded[1, :9] = ids
        got = predict(model, padded, torch.ones_like(columns), columns, temperature=1.0).logprobs
        torch.testing.assert_close(got, alone, atol=1e-6, rtol=1e-6)


def test_a_model_with_soft_capped_logits_is_refused(model: Qwen3ForCausalLM) -> None:
    check_head(model)
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            final_logit_softcapping=0.1,
            initializer_range=0.5,
        )
    )
    with pytest.raises(ConfigError, match="Gemma2ForCausalLM does more to its logits"):
        check_head(capped)
