"""What a model says of chosen tokens before it sees them, and nothing else computed.

What comes in: a causal language model and padded rows. What goes out: log-probs, entropies and, with a value head,
values at the asked positions. The vocabulary projection runs on those positions alone. The one shift there is (the
hidden state at t - 1 speaks about token t) stands here. Knows no objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agentrl.errors import ConfigError
from agentrl.learner.value_head import ValueHead


@dataclass(frozen=True, slots=True)
class Predictions:
    """Of each asked token; float32."""

    logprobs: Tensor  # [A] nats; carries the gradient
    entropies: Tensor  # [A] nats, of the distribution the token is chosen from
    values: Tensor | None  # [A] return expected before the token is chosen; carries the gradient


def predict(
    model: nn.Module,
    input_ids: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    temperature: float,
    value_head: ValueHead | None = None,
    entropy_gradient: bool = False,
) -> Predictions:
    """What is said of `input_ids[rows, columns]` given all tokens before them.

    Args:
        model: a transformers causal language model.
        input_ids: [B, L] right-padded.
        rows, columns: [A] positions; every column is at least 1.
        temperature: the logits are divided by it, as the sampler did.
        value_head: gives the values; None: there are none.
        entropy_gradient: whether the entropies carry one, too.
    """
    hidden = hidden_before(model, input_ids, rows, columns)
    logits = split_head(model)[1](hidden).float()  # [A, V]
    if temperature != 1.0:
        logits = logits / temperature
    every = torch.log_softmax(logits, dim=-1)
    chosen = every.gather(-1, input_ids[rows, columns].unsqueeze(-1)).squeeze(-1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropies = -(every.exp() * every).sum(-1)
    return Predictions(chosen, entropies, None if value_head is None else value_head(hidden))


def hidden_before(model: nn.Module, input_ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[A, D] the last hidden state that speaks about each of `input_ids[rows, columns]`."""
    decoder, _ = split_head(model)
    hidden: Tensor = decoder(input_ids=input_ids, use_cache=False).last_hidden_state[rows, columns - 1]
    return hidden


def split_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The transformer without its vocabulary projection, and the projection."""
    return model.get_decoder(), model.get_output_embeddings()  # type: ignore[operator]


def make_value_head(model: nn.Module) -> ValueHead:
    """A new head for a model's hidden states, on its device."""
    _, head = split_head(model)
    return ValueHead(head.weight.shape[1], head.weight.device)  # type: ignore[index,arg-type]


@torch.no_grad()
def check_head(model: nn.Module) -> None:
    """Refuse a model whose logits are more than head(hidden), such as those with soft-capped or scaled logits.

    Raises:
        ConfigError: log-probs from the split differ from the model's own.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    probe = (torch.arange(8, device=device) * 7919 % vocabulary).unsqueeze(0)  # [1, 8]
    was_training = model.training
    model.eval()
    whole = model(input_ids=probe, use_cache=False).logits.float().log_softmax(-1)  # [1, 8, V]
    positions = torch.arange(1, 8, device=device)
    split = predict(model, probe, torch.zeros_like(positions), positions, temperature=1.0).logprobs
    model.train(was_training)
    gap = (whole[0, positions - 1, probe[0, 1:]] - split).abs().max().item()
    if not gap < 1e-2:
        raise ConfigError(
            f"{type(model).__name__} does more to its logits than its output layer (log-probs differ by {gap:.3g}): "
            "agentrl's learner cannot train it yet; use a model without logit scaling or soft-capping"
        )
