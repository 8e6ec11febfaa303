"""A transformers causal language model that computes rows together: prompts, then a token at a time.

What comes in: token ids of rows that stand side by side in the key-value cache. What goes out: one sampled token a row.
All of torch happens here, and in one thread at a time. Knows no requests, episodes, stop tokens or event loop.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from agentrl.engine.hf.attention import GROUPED_ATTENTION
from agentrl.engine.hf.cache import KeyValueRows, Writes, aligned
from agentrl.engine.hf.prefill import Prompt
from agentrl.engine.hf.sampling import Draws, Sampled, sample
from agentrl.engine.hf.support import cache_shape, check_servable
from agentrl.engine.hf.weights import copy_weights
from agentrl.trajectory import IntArray


class HFModel:
    """The model and the keys and values of its rows. It owns the model: moves it, casts it, overwrites its weights."""

    def __init__(
        self, model: Any, *, max_rows: int, max_positions: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """
        Raises:
            ConfigError: `model` is not one that can be served here.
        """
        check_servable(model, max_positions)
        self._device = device
        self._dtype = dtype
        self._model = _prepared(model, device, dtype)
        shape = cache_shape(self._model)
        self._kv = KeyValueRows(shape, max_rows, max_positions, device=device, dtype=dtype)
        self.vocab_size = int(self._model.get_input_embeddings().num_embeddings)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prompt], owners: Sequence[int], first: int, draws: Draws) -> Sampled:
        """Compute prompts into rows `first`..., copy them to the rows that share them, sample each row's first token.

        Row `first + i` gets prompt `owners[i]`; `owners` starts with 0, 1, ..., len(prompts) - 1.
        """
        lengths = [prompt.start + len(prompt.token_ids) for prompt in prompts]
        span = aligned(max(lengths))
        self._kv.reserve(first + len(owners), span)
        for row, prompt in enumerate(prompts, first):
            if prompt.prefix is not None:
                self._kv.write(row, prompt.prefix)
        token_ids, positions, valid = _left_padded(prompts)
        rows, columns = (self._tensor(index) for index in np.nonzero(valid))
        writes = Writes(rows=rows, columns=columns, positions=self._tensor(positions[valid]))
        self._kv.aim(first, first + len(prompts), span, writes)
        logits = self._forward(token_ids, positions, span)
        for row, owner in enumerate(owners):
            if row >= len(prompts):
                self._kv.copy(first + owner, first + row, lengths[owner])
        return sample(logits[self._tensor(np.asarray(owners))], draws)

    @torch.inference_mode()
    def decode(self, token_ids: IntArray, positions: IntArray, draws: Draws) -> Sampled:
        """Feed one token to each of rows 0..n-1 at its position ([n], [n]) and sample the next."""
        rows = len(token_ids)
        span = aligned(int(positions.max()) + 1)
        self._kv.reserve(rows, span)
        writes = Writes(rows=self._tensor(np.arange(rows)), columns=None, positions=self._tensor(positions))
        self._kv.aim(0, rows, span, writes)
        return sample(self._forward(token_ids[:, None], positions[:, None], span), draws)

    @torch.inference_mode()
    def rearrange(self, reads: Sequence[tuple[int, int]], moves: Sequence[tuple[int, int, int]]) -> list[torch.Tensor]:
        """Return copies of rows given as (row, length), [layers, 2, heads, length, head_dim] each; then move rows.

        Moves are given as (from, to, length) and done in order.
        """
        copies = [self._kv.read(row, length) for row, length in reads]
        for source, target, length in moves:
            self._kv.copy(source, target, length)
        return copies

    @torch.inference_mode()
    def forget(self, first: int) -> None:
        """Forget the rows from `first` on, whatever a broken step left in them."""
        self._kv.clear(first)

    @torch.inference_mode()
    def load(self, named_tensors: Iterable[tuple[str, Any]]) -> None:
        """Copy weights in place, all or none.

        Raises:
            ValueError: names or shapes are not the model's.
        """
        copy_weights(self._model, named_tensors)

    def _forward(self, token_ids: IntArray, positions: IntArray, span: int) -> torch.Tensor:
        """Return the logits [N, V] after the last of `token_ids` [N, T] at `positions` [N, T].

        A query sees the positions up to its own, in the rows and the span of positions that the cache is aimed at.
        """
        where = self._tensor(positions)
        hidden = torch.arange(span, device=self._device) > where[:, None, :, None]  # [N, 1, T, span]
        mask = torch.zeros(hidden.shape, device=self._device, dtype=self._dtype).masked_fill_(hidden, -torch.inf)
        output = self._model(
            input_ids=self._tensor(token_ids),
            attention_mask=mask,
            position_ids=where,
            past_key_values=self._kv.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _tensor(self, array: IntArray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _left_padded(prompts: Sequence[Prompt]) -> tuple[IntArray, IntArray, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return token ids, positions and where they are real ([N, T] each), padded in front.

    So the last token of every prompt stands in the last column, where the logits are taken. Padding has position 0: it
    sees the first token alone, which is always there, and is written nowhere.
    """
    width = max(len(prompt.token_ids) for prompt in prompts)
    token_ids = np.zeros((len(prompts), width), dtype=np.int64)
    positions = np.zeros((len(prompts), width), dtype=np.int64)
    valid = np.zeros((len(prompts), width), dtype=np.bool_)
    for index, prompt in enumerate(prompts):
        length = len(prompt.token_ids)
        token_ids[index, width - length :] = prompt.token_ids
        positions[index, width - length :] = np.arange(prompt.start, prompt.start + length)
        valid[index, width - length :] = True
    return token_ids, positions, valid


def _prepared(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return the model ready to sample: moved, its parameters cast, its config its own, grouped attention chosen.

    Buffers keep their type: rotary frequencies rounded to bfloat16 would shift every position. The config is copied
    because choosing an attention writes into it, and the caller's other models may hold the same one.
    """
    shared, own = model.config, copy.deepcopy(model.config)
    for module in model.modules():
        if vars(module).get("config") is shared:
            module.config = own
    model.to(device).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.set_attn_implementation(GROUPED_ATTENTION)
    return model
