"""Adds up what the micro-batches of one step report.

What comes in: sums, maxima and samples of each micro-batch, as tensors. What goes out: means a token, and quantiles,
as numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

_QUANTILES = {"p01": 0.01, "p50": 0.5, "p99": 0.99}


@dataclass(slots=True)
class Totals:
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    maxima: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))

    def add(self, sums: Mapping[str, Tensor], maxima: Mapping[str, Tensor], samples: Mapping[str, Tensor]) -> None:
        """Take one micro-batch's scalars, in a single copy from the device, and its samples."""
        values = torch.stack([value.detach().float() for value in (*sums.values(), *maxima.values())]).tolist()
        for name, value in zip(sums, values[: len(sums)], strict=True):
            self.sums[name] += value
        for name, value in zip(maxima, values[len(sums) :], strict=True):
            self.maxima[name] = max(value, self.maxima.get(name, value))
        for name, sample in samples.items():
            self.samples[name].append(sample.detach())

    def means(self, updates: int) -> dict[str, float]:
        """The loss an update; everything else a token, save two.

        `sampler_ess` is the effective share of the tokens; `clipped_positive` and `clipped_negative` are shares of the
        tokens whose advantage has that sign.
        """
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
        for sign in ("positive", "negative"):
            with_sign, clipped = sums.pop(sign, 0.0), sums.pop(f"clipped_{sign}", 0.0)
            out[f"clipped_{sign}"] = clipped / max(1.0, with_sign)
        out |= {name: total / tokens for name, total in sums.items()}
        return out | {f"{name}_max": value for name, value in self.maxima.items()} | self._quantiles()

    def _quantiles(self) -> dict[str, float]:
        out: dict[str, float] = {}
        for name, parts in self.samples.items():
            sample = torch.cat(parts).float().cpu().numpy()
            if len(sample):
                values = np.quantile(sample, list(_QUANTILES.values())).tolist()
                out |= {f"{name}/{label}": value for label, value in zip(_QUANTILES, values, strict=True)}
        return out
