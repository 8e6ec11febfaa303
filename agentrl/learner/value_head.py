"""The critic's head: what return a policy's own hidden state promises.

What comes in: hidden states of the policy. What goes out: one value for each. It is trained beside the policy and
saved beside it; the engine never gets it. Knows no objective.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """v = mean_d(w_d h_d) + b, in float32; 0 for every state at first.

    The mean in place of a sum makes one learning rate fit every width: an optimiser step of size lr on each weight
    moves v by about lr.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, device=device))
        self.bias = nn.Parameter(torch.zeros((), device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] to [...]."""
        return (hidden.float() * self.weight).mean(-1) + self.bias
