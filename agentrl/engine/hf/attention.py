"""Attention for decoding that reads grouped keys and values where they lie.

What comes in: queries of H heads, keys and values of G <= H heads. What goes out: the attention's output. The SDPA path
of transformers first copies every key and value H / G times, which is most of a decoding step's time; here the H / G
query heads of a group stand as rows of one query instead. Knows no cache, mask builder or model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

GROUPED_ATTENTION = "agentrl_grouped"  # its name in transformers' attention table


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [N, H, T, D]
    key: torch.Tensor,  # [N, G, L, D]
    value: torch.Tensor,  # [N, G, L, D]
    attention_mask: torch.Tensor | None,  # [N, 1, T, L], added to the scores
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend; returns ([N, T, H, D], None). Several queries a row (prefill) go transformers' way."""
    rows, heads, length, head_dim = query.shape
    if length > 1:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return output
    groups = key.shape[1]
    attended = functional.scaled_dot_product_attention(
        query.reshape(rows, groups, heads // groups, head_dim), key, value, attn_mask=attention_mask, scale=scaling
    )
    return attended.reshape(rows, 1, heads, head_dim), None


AttentionInterface.register(GROUPED_ATTENTION, grouped_attention)
