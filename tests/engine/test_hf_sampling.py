"""Sampling by inverse CDF, with hand-worked rows."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.engine.hf.row import uniforms
from agentrl.engine.hf.sampling import Draws, sample

LOG_P = torch.log(torch.tensor([0.0, 0.25, 0.5, 0.25, 0.0]))  # the first and the last token are impossible


def draws(*rows: tuple[float, float]) -> Draws:
    """Rows of (temperature, uniform)."""
    return Draws(
        temperatures=np.array([row[0] for row in rows], dtype=np.float32), uniforms=np.array([row[1] for row in rows])
    )


def test_each_row_by_hand() -> None:
    rows = {(1, 0.0): 1, (1, 0.2499): 1, (1, 0.2501): 2, (1, 0.7499): 2, (1, 0.7501): 3, (1, 1 - 1e-9): 3, (0, 0.9): 2}
    sampled = sample(LOG_P.repeat(len(rows), 1), draws(*rows))
    assert sampled.token_ids.tolist() == list(rows.values())
    expected = np.log([0.25, 0.25, 0.5, 0.5, 0.25, 0.25, 0.5])
    np.testing.assert_allclose(sampled.logprobs, expected, atol=1e-6)


def test_temperature_is_part_of_the_distribution_and_of_the_logprob() -> None:
    """At temperature 1/2 the odds 1 : 2 : 1 become 1 : 4 : 1; greedy sampling reports the raw odds."""
    sampled = sample(LOG_P.repeat(3, 1), draws((0.5, 1 / 6 - 0.01), (0.5, 1 / 6 + 0.01), (0.0, 0.0)))
    assert sampled.token_ids.tolist() == [1, 2, 2]
    np.testing.assert_allclose(sampled.logprobs, np.log([1 / 6, 4 / 6, 1 / 2]), atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_a_row_does_not_see_its_neighbours(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(size=(rows, 50)).astype(np.float32) * 4)
    temperatures = random.choice(np.array([0, 0.7, 1], dtype=np.float32), rows)
    numbers = random.random(rows)
    together = sample(logits, Draws(temperatures, numbers))
    order = random.permutation(rows)
    shuffled = sample(logits[torch.from_numpy(order)], Draws(temperatures[order], numbers[order]))
    assert together.token_ids[order].tolist() == shuffled.token_ids.tolist()
    assert together.logprobs[order].tobytes() == shuffled.logprobs.tobytes()


def test_random_numbers_depend_on_the_seed_alone() -> None:
    assert uniforms(5, 3) == uniforms(5, 100)[:3]
    assert uniforms(5, 3) != uniforms(6, 3)
    assert len(set(uniforms(-1, 50))) == 50  # any integer is a seed
