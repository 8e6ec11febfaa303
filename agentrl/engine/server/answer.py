"""What goes over the wire for one completion: a request as vLLM's token endpoint takes it, and its answer, proven.

What comes in: a `Request`, or an answer as JSON. What goes out: a JSON body, or a `Completion`. Nothing in an answer is
taken on trust: each token must have its own finite log-probability and a version that the server was given, or the
whole answer is refused. Knows no network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from agentrl.engine.base import Request, Sampling
from agentrl.trajectory import Completion, IntArray

_NO_LOGPROB = -9000.0  # vLLM writes -9999 where it has none, or one that JSON cannot hold
_MOST_LOGPROB = 1e-3  # rounding; a probability is at most 1
_REASONS: Mapping[Any, Literal["stop", "length", "abort"]] = {"stop": "stop", "length": "length", "abort": "abort"}


class BadAnswer(ValueError):
    """An answer that does not say what a completion needs."""


class Answer(NamedTuple):
    completion: Completion
    prompt_tokens: int
    cached_tokens: int | None  # of the prompt, found in the prefix cache; None: the server does not tell


def generate_body(request: Request, *, request_id: str, max_tokens: int, weights: str) -> dict[str, Any]:
    """The body of POST /inference/v1/generate. `weights` is what the server calls those it has now."""
    sampling = request.sampling
    return {
        "request_id": request_id,
        "token_ids": request.prompt_ids.tolist(),
        "cache_salt": weights,  # keeps prefixes that other weights computed from being reused
        "sampling_params": {
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed % 2**63,
            "stop_token_ids": list(sampling.stop_ids),
            "ignore_eos": True,  # the request alone says what stops it
            "logprobs": 0,  # the sampled token's alone
            "detokenize": False,
        },
    }


def read_answer(answer: Any, sampling: Sampling, *, max_tokens: int, weights: Mapping[str, int]) -> Answer:
    """Read the answer of POST /inference/v1/generate.

    Args:
        max_tokens: as asked for.
        weights: name and version of those that the server had since the request was sent.

    Raises:
        BadAnswer: something is missing, of another length, or cannot be true.
    """
    try:
        (choice,) = answer["choices"]
        token_ids = _token_ids(choice["token_ids"])
        logprobs = _logprobs(choice["logprobs"], token_ids)
        spans = choice.get("weight_versions") or ()
        reason = _REASONS.get(choice["finish_reason"])
        usage = answer["usage"]
        prompt_tokens, details = int(usage["prompt_tokens"]), usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, BadAnswer):
            raise
        raise BadAnswer(f"the answer is not vLLM's: {type(error).__name__}: {error}") from error
    if reason is None:
        raise BadAnswer(f"it ended with {choice['finish_reason']!r}; wanted 'stop', 'length' or 'abort'")
    if len(token_ids) > max_tokens or (reason == "length" and len(token_ids) < max_tokens):
        raise BadAnswer(f"{len(token_ids)} tokens with reason {reason!r}, where at most {max_tokens} were asked for")
    if reason == "stop" and (not len(token_ids) or token_ids[-1] not in sampling.stop_ids):
        raise BadAnswer(f"it stopped at no stop id: {token_ids[-1:].tolist()} is none of {list(sampling.stop_ids)}")
    labels = _versions(spans, len(token_ids), weights)
    return Answer(Completion(token_ids, logprobs, labels, reason), prompt_tokens, cached)


def _token_ids(values: Any) -> IntArray:
    if not isinstance(values, list) or any(type(value) is not int or value < 0 for value in values):
        raise BadAnswer(f"token_ids is {str(values)[:80]}, wanted a list of ids")
    return np.array(values, dtype=np.int64)


def _logprobs(values: Any, token_ids: IntArray) -> Any:
    """[C] nats, of these very tokens."""
    entries = values["content"] or []
    if len(entries) != len(token_ids):
        raise BadAnswer(f"there are {len(entries)} log-probabilities for {len(token_ids)} tokens")
    if [entry["token_id"] for entry in entries] != token_ids.tolist():
        raise BadAnswer("the log-probabilities are those of other tokens")
    found = [float(entry["logprob"]) for entry in entries]
    if wrong := [value for value in found if not (math.isfinite(value) and _NO_LOGPROB < value < _MOST_LOGPROB)]:
        raise BadAnswer(f"{wrong[0]} is no log-probability of a sampled token")
    return np.array(found, dtype=np.float32)


def _versions(spans: Any, n: int, weights: Mapping[str, int]) -> IntArray:
    """[C] from spans that must cover every token, in order, with the names of weights that the server was given."""
    labels = np.full(n, -1, dtype=np.int64)
    end = 0
    try:
        for span in spans:
            start, stop = int(span["start"]), int(span["end"])
            if span["version"] not in weights:
                raise BadAnswer(f"its tokens were sampled by weights {span['version']!r}, which it was not given")
            if start != end or not start <= stop <= n:
                raise BadAnswer(f"weight_versions {spans} of {n} tokens do not follow one another")
            labels[start:stop] = weights[span["version"]]
            end = stop
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BadAnswer):
            raise
        raise BadAnswer(f"weight_versions {str(spans)[:200]} cannot be read") from error
    if end != n:
        raise BadAnswer(f"it says of {end} of {n} tokens which weights sampled them: agentrl needs vLLM 0.32 or newer")
    return labels
