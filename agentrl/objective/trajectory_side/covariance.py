"""Which of a step's tokens change the entropy most: those where advantage and log-probability go together.

What comes in: a batch, its advantages and the log-probs at the step's start. What goes out: [N] 1 at the chosen loss
tokens. It looks at the whole step, so the cut into micro-batches changes no choice. Knows no gate and no penalty.
"""

from __future__ import annotations

import zlib

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Batch, Float64Array, Scores
from agentrl.trajectory import FloatArray, IntArray


def covariances(owner: str, batch: Batch, scores: Scores, advantages: Float64Array) -> Float64Array:
    """[loss tokens] (A_t - mean A)(log pi(a_t) - mean log pi), means over the loss tokens (2505.22617).

    Raises:
        ConfigError: there are no log-probs; `owner` is who asks.
    """
    mask = batch.loss_mask
    if not mask.any():
        return np.zeros(0)
    if scores.logprobs is None:
        raise ConfigError(
            f"{owner} reads the policy's log-probs at the step's start and there are none: let the learner score the "
            "batch before the advantages are made"
        )
    a, logs = advantages[mask], scores.logprobs[mask].astype(np.float64)
    out: Float64Array = (a - a.mean()) * (logs - logs.mean())
    return out


def random_within(
    owner: str, batch: Batch, scores: Scores, advantages: Float64Array, share: float, low: float, high: float
) -> FloatArray:
    """[N] 1 at max(1, share n) of the n loss tokens, drawn from those with low < covariance < high.

    Seeded by what was sampled: the same step draws the same tokens.
    """
    cov = covariances(owner, batch, scores, advantages)
    candidates = np.flatnonzero((cov > low) & (cov < high))
    sampled = batch.token_ids[batch.loss_mask].tobytes() + batch.behavior_logprobs[batch.loss_mask].tobytes()
    order = np.random.default_rng(zlib.crc32(sampled)).permutation(candidates)
    return _marked(batch, order[: _count(share, len(cov))])


def highest(owner: str, batch: Batch, scores: Scores, advantages: Float64Array, share: float) -> FloatArray:
    """[N] 1 at the max(1, share n) of the n loss tokens with the highest covariances; of equal ones, the first."""
    cov = covariances(owner, batch, scores, advantages)
    return _marked(batch, np.argsort(-cov, kind="stable")[: _count(share, len(cov))])


def _count(share: float, tokens: int) -> int:
    return max(1, int(share * tokens))


def _marked(batch: Batch, chosen: IntArray) -> FloatArray:
    out = np.zeros(batch.n_tokens, np.float32)
    out[np.flatnonzero(batch.loss_mask)[chosen]] = 1.0
    return out
