"""The critic's head: what return a policy's own hidden state promises.

What comes in: hidden states of the policy. What goes out: one value for each. It is trained beside the policy and
saved beside it; the engine never gets it. Knows no objective.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SMALLEST = 0.1  # of the mean spread: a feature that hardly moves is not blown up to the others' size


class ValueHead(nn.Module):
    """v = mean_d(w_d (h_d - centre_d) / spread_d) + b, in float32; 0 for every state at first.

    Linear in h. What hidden states have in common is far larger than what tells them apart, so that an optimiser's steps
    on plain h go to and fro along the former: they are centred and scaled by what the first batch shows, once and for
    all. The mean in place of a sum makes one learning rate fit every width: a step of size lr on each weight moves v by
    about lr.
    """

    centre: Tensor  # [D]
    spread: Tensor  # [D] 0 until it has been measured

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, device=device))
        self.bias = nn.Parameter(torch.zeros((), device=device))
        self.register_buffer("centre", torch.zeros(width, device=device))
        self.register_buffer("spread", torch.zeros(width, device=device))

    @property
    def measured(self) -> bool:
        return bool(self.spread.any())

    @torch.no_grad()
    def measure(self, hidden: Tensor) -> None:
        """Take centre and spread of hidden states, [A, D]."""
        spread = hidden.float().std(0, correction=0)
        self.centre.copy_(hidden.float().mean(0))
        self.spread.copy_(spread.clamp(min=_SMALLEST * spread.mean()) if spread.any() else torch.ones_like(spread))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] to [...]."""
        return ((hidden.float() - self.centre) / self.spread * self.weight).mean(-1) + self.bias
