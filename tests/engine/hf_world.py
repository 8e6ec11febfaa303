"""What the tests of the embedded engine share: a tiny real model, requests, and slow, obvious twins of the engine."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentrl.engine.base import Request, Sampling
from agentrl.engine.hf import HFEngine
from agentrl.engine.hf.engine import compute_thread
from agentrl.engine.settings import EngineSettings

VOCAB = 97


def tiny_model(seed: int = 0, **changes: Any) -> Qwen3ForCausalLM:
    """A Qwen3 with weights large enough for distributions that are neither flat nor all but certain."""
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.25,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(**(sizes | changes))).eval()


@asynccontextmanager
async def serving(model: Qwen3ForCausalLM, *, threaded: bool = False, **settings: Any) -> AsyncIterator[HFEngine]:
    """A started engine over a copy of `model`, closed at the end; `threaded` as it is with a GPU."""
    engine = HFEngine(copy.deepcopy(model), EngineSettings(**({"max_context": 256, "max_batch": 64} | settings)))
    if threaded:
        engine._thread = compute_thread()
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110  there is no event to wait for inside the engine
        await asyncio.sleep(0.001)


def prompt(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, length)


def request(
    prompt_ids: np.ndarray,
    max_tokens: int,
    *,
    episode: str = "e",
    stop: Iterable[int] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> Request:
    sampling = Sampling(max_tokens=max_tokens, stop_ids=tuple(stop), temperature=temperature, seed=seed)
    return Request(prompt_ids=prompt_ids, sampling=sampling, episode_id=episode)


@torch.no_grad()
def greedy_twin(model: Qwen3ForCausalLM, prompt_ids: np.ndarray, count: int) -> list[int]:
    """The most likely continuation, computed without any cache."""
    ids = list(prompt_ids)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt_ids) :]


@torch.no_grad()
def is_greedy(model: Qwen3ForCausalLM, prompt_ids: np.ndarray, token_ids: np.ndarray) -> bool:
    """True where every token is the most likely one after all before it; by induction, what `greedy_twin` returns."""
    logits = model(torch.tensor(np.concatenate([prompt_ids, token_ids])[None])).logits[0, len(prompt_ids) - 1 : -1]
    return bool((logits.argmax(dim=-1).numpy() == token_ids).all())


@torch.no_grad()
def logprobs_twin(
    model: Qwen3ForCausalLM, prompt_ids: np.ndarray, token_ids: np.ndarray, temperature: float = 1.0
) -> np.ndarray:
    """The log-probabilities of `token_ids` after `prompt_ids`, in one forward pass over all."""
    ids = torch.tensor(np.concatenate([prompt_ids, token_ids])[None])
    logits = model(ids).logits[0, len(prompt_ids) - 1 : -1].double()
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    return log_p[torch.arange(len(token_ids)), torch.as_tensor(token_ids)].numpy()


class Weights:
    """A weight source over a model."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.tensors = dict(model.named_parameters())

    def named_tensors(self) -> Iterable[tuple[str, torch.Tensor]]:
        return self.tensors.items()

    def write(self, folder: Path) -> None:
        raise NotImplementedError("the embedded engine takes tensors")
