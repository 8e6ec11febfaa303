"""Adds up what the micro-batches of one update report.

What comes in: sums and maxima of each micro-batch, as tensors. What goes out: means a token, as numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class Totals:
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    maxima: dict[str, float] = field(default_factory=dict)

    def add(self, sums: Mapping[str, Tensor], maxima: Mapping[str, Tensor]) -> None:
        """Take one micro-batch's scalars; a single copy from the device."""
        values = torch.stack([value.detach().float() for value in (*sums.values(), *maxima.values())]).tolist()
        for name, value in zip(sums, values[: len(sums)], strict=True):
            self.sums[name] += value
        for name, value in zip(maxima, values[len(sums) :], strict=True):
            self.maxima[name] = max(value, self.maxima.get(name, value))

    def means(self, updates: int) -> dict[str, float]:
        """The loss a number of updates, everything else a token; `sampler_ess` is the effective share of the tokens."""
        sums = dict(self.sums)
        tokens = max(1.0, sums.pop("tokens", 0.0))
        padded, real = sums.pop("padded_tokens", 0.0), sums.pop("row_tokens", 0.0)
        squares = sums.pop("sampler_ratio_squared", 0.0)
        out = {
            "loss": sums.pop("loss", 0.0) / max(1, updates),
            "loss_tokens": tokens,
            "padding_share": 1.0 - real / padded if padded else 0.0,
            "sampler_ess": sums.get("sampler_ratio", 0.0) ** 2 / (tokens * squares) if squares else 1.0,
        }
        out |= {name: total / tokens for name, total in sums.items()}
        return out | {f"{name}_max": value for name, value in self.maxima.items()}
