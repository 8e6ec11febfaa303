"""What the micro-batches of a step add up to, by hand."""

from __future__ import annotations

import pytest
import torch

from agentrl.learner.totals import Totals


def test_sums_maxima_and_quantiles() -> None:
    totals = Totals()
    for part in ([1.0, 2.0], [5.0], []):
        ratios = torch.tensor(part)
        sums = {"loss": ratios.sum() / 10, "ratio": ratios.sum(), "tokens": torch.tensor(float(len(part)))}
        totals.add(sums, {"ratio": torch.tensor(max(part, default=0.0))}, {"ratio": ratios})
    metrics = totals.means(2)
    assert metrics["loss"] == pytest.approx(0.4)
    assert metrics["ratio"] == pytest.approx(8 / 3)
    assert metrics["ratio_max"] == 5
    assert metrics["loss_tokens"] == 3
    assert metrics["ratio/p50"] == 2
    assert metrics["ratio/p01"] == pytest.approx(1.02)
    assert metrics["ratio/p99"] == pytest.approx(4.94)


def test_clipped_shares_are_of_the_tokens_of_their_sign() -> None:
    totals = Totals()
    for tokens, up, down, cut_up, cut_down in ((6.0, 4.0, 2.0, 1.0, 1.0), (4.0, 4.0, 0.0, 1.0, 0.0)):
        counts = {"tokens": tokens, "positive": up, "negative": down}
        cuts = {"clipped_positive": cut_up, "clipped_negative": cut_down}
        totals.add({name: torch.tensor(n) for name, n in {**counts, **cuts}.items()}, {}, {})
    metrics = totals.means(1)
    assert (metrics["clipped_positive"], metrics["clipped_negative"]) == (0.25, 0.5)
    assert "positive" not in metrics


def test_no_sample_has_no_quantile() -> None:
    totals = Totals()
    totals.add({"tokens": torch.tensor(0.0)}, {}, {"ratio": torch.zeros(0)})
    assert "ratio/p50" not in totals.means(0)
