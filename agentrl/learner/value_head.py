"""The critic's head: what return a policy's own hidden state promises.

What comes in: hidden states of the policy. What goes out: one value for each. It is trained beside the policy and
saved beside it; the engine never gets it. Knows no objective.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_SMALLEST = 0.1  # of the mean spread: a feature that hardly moves is not blown up to the others' size


class ValueHead(nn.Module):
    """v = mean_d(w_d (h_d - centre_d) / spread_d) + b, in float32; 0 for every state at first.

    Linear in h. What hidden states have in common is far larger than what tells them apart, and an optimiser's steps on
    plain h go to and fro along the former; so they are centred and scaled by what the first batch shows, once and for
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
    def measure(self, states: Iterable[Tensor]) -> None:
        """Take centre and spread of hidden states, [A, D] each; of none at all, nothing."""
        count, sums, squares = 0, torch.zeros_like(self.centre).double(), torch.zeros_like(self.centre).double()
        for hidden in states:
            count += len(hidden)
            sums = sums + hidden.double().sum(0)
            squares = squares + hidden.double().square().sum(0)
        if count:
            spread = (squares / count - (sums / count) ** 2).clamp(min=0).sqrt()
            self.centre.copy_(sums / count)
            self.spread.copy_(spread.clamp(min=_SMALLEST * spread.mean()) if spread.any() else torch.ones_like(spread))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] to [...]."""
        return ((hidden.float() - self.centre) / self.spread * self.weight).mean(-1) + self.bias
