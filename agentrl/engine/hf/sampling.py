"""Sampling of one token a row from logits.

What comes in: logits, and for every row a temperature and one uniform number drawn beforehand. What goes out: token ids
and the log-probabilities of exactly the distribution that was sampled from. A row's result depends on its own logits,
temperature and number alone, never on its place in the batch. Knows no model, request or random generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from agentrl.trajectory import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Draws:
    """How each of N rows is sampled."""

    temperatures: FloatArray  # [N] 0 is greedy
    uniforms: npt.NDArray[np.float64]  # [N] in [0, 1); not read where greedy


@dataclass(frozen=True, slots=True)
class Sampled:
    """One token for each of N rows."""

    token_ids: IntArray  # [N]
    logprobs: FloatArray  # [N] nats; not finite where the logits were not


def sample(logits: torch.Tensor, draws: Draws) -> Sampled:
    """Sample one token from each row of `logits` [N, V].

    With temperature T > 0 the distribution is p = softmax(logits / T) and the token is the first i whose cumulative sum
    c_i = p_0 + ... + p_i exceeds u * c_{V-1} (inverse CDF). Log-softmax is taken in float32; the cumulative sum in
    float64, so that tokens far below float32's resolution keep their chance. With T = 0 the token is the first argmax
    and the log-probability is of softmax(logits).
    """
    greedy = draws.temperatures == 0
    scale = torch.from_numpy(np.where(greedy, np.float32(1), draws.temperatures)).to(logits.device)
    log_p = torch.log_softmax(logits.float() / scale[:, None], dim=-1)  # [N, V]
    if greedy.all():
        tokens = log_p.argmax(dim=-1, keepdim=True)
    else:
        tokens = _inverse_cdf(log_p, torch.from_numpy(draws.uniforms).to(logits.device))
        if greedy.any():
            is_greedy = torch.from_numpy(greedy).to(logits.device)
            tokens = torch.where(is_greedy[:, None], log_p.argmax(dim=-1, keepdim=True), tokens)
    logprobs = log_p.gather(1, tokens)[:, 0]
    return Sampled(token_ids=tokens[:, 0].cpu().numpy(), logprobs=logprobs.cpu().numpy())


def _inverse_cdf(log_p: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return the sampled token of each row: [N, 1] from log-probabilities [N, V] and uniforms [N]."""
    cumulative = log_p.exp().cumsum(dim=-1, dtype=torch.float64)
    threshold = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).clamp_(max=log_p.shape[1] - 1)
