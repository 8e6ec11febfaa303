"""How prompts are put together to be computed in few forward passes.

What comes in: the rows admitted at one moment and what is kept of their episodes. What goes out: chunks of prompts that
go through the model together, each prompt once however many rows share it. Order and grouping are a pure function of
what comes in. Knows no model and no scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from agentrl.engine.hf.prefixes import Prefixes
from agentrl.engine.hf.row import Row
from agentrl.trajectory import IntArray


@dataclass(slots=True)
class Prompt:
    """What one or more rows start from."""

    token_ids: IntArray  # [T] to compute: the prompt without what is kept
    prefix: torch.Tensor | None  # [layers, 2, heads, L, head_dim] keys and values of what is kept
    rows: list[Row]  # all have this prompt

    @property
    def start(self) -> int:
        """The position of the first token to compute."""
        return 0 if self.prefix is None else int(self.prefix.shape[3])


def gather_prompts(rows: Sequence[Row], prefixes: Prefixes) -> list[Prompt]:
    """Return the prompts of `rows`, shortest first. Rows with equal prompts and nothing kept share one."""
    prompts: list[Prompt] = []
    shared: dict[bytes, Prompt] = {}
    for row in rows:
        prefix = prefixes.take(row.episode_id, row.prompt_ids)
        if prefix is not None:
            prompts.append(Prompt(row.prompt_ids[prefix.shape[3] :], prefix, [row]))
            continue
        key = row.prompt_ids.tobytes()
        if key in shared:
            shared[key].rows.append(row)
        else:
            shared[key] = Prompt(row.prompt_ids, None, [row])
            prompts.append(shared[key])
    return sorted(prompts, key=lambda prompt: len(prompt.token_ids))


def chunk_prompts(prompts: Sequence[Prompt], max_tokens: int) -> list[list[Prompt]]:
    """Cut prompts, shortest first, into chunks of at most `max_tokens` tokens, padding included, or of one prompt."""
    chunks: list[list[Prompt]] = []
    for prompt in prompts:
        if chunks and (len(chunks[-1]) + 1) * len(prompt.token_ids) <= max_tokens:
            chunks[-1].append(prompt)
        else:
            chunks.append([prompt])
    return chunks


def chunk_rows(chunk: Sequence[Prompt]) -> tuple[list[Row], list[int]]:
    """Return a chunk's rows in the order they are placed, and for each the index of its prompt.

    First one row of every prompt, so that computed prompts stand side by side; then the rows that copy one.
    """
    rows = [prompt.rows[0] for prompt in chunk]
    owners = list(range(len(chunk)))
    for index, prompt in enumerate(chunk):
        rows.extend(prompt.rows[1:])
        owners.extend([index] * (len(prompt.rows) - 1))
    return rows, owners
