"""Where a policy comes from: a Hugging Face checkpoint, or a tiny Qwen3 made from a seed.

What comes in: a path, or sizes and a tokenizer folder. What goes out: a transformers model in float32, or a
checkpoint folder that transformers and vLLM load as any other. Knows no objective.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from agentrl.errors import DataError
from agentrl.learner.predictions import check_head
from agentrl.learner.settings import TinySettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel as PreTrainedModel


def load_model(path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a causal language model.

    Raises:
        DataError: there is no model at `path`.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype, attn_implementation="sdpa")
    except Exception as error:  # whatever a missing or broken file makes of transformers, safetensors or torch
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"no causal language model could be loaded from {str(path)!r} ({reason}): give policy.path a folder that "
            "save_pretrained wrote, a Hugging Face hub id, or 'tiny'"
        ) from error
    return model.to(device)


def load_trainable(path: str | Path, *, device: str) -> PreTrainedModel:
    """Load a model to be trained: float32 weights, and logits that the learner can compute by parts.

    Raises:
        DataError: there is no model at `path`.
        ConfigError: the model's logits are more than its output layer.
    """
    model = load_model(path, device=device)
    check_head(model)
    return model


def make_tiny(settings: TinySettings, tokenizer_folder: Path, folder: Path, *, seed: int, max_context: int) -> None:
    """Make an untied Qwen3 from a seed and save it, with its tokenizer, as a checkpoint in `folder`.

    Tied embeddings would be smaller, but a reload of tied weights leaves a stale output layer in some engines.
    """
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=2 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=max_context,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config.do_sample = True
    save_model(model, Path(folder))
    tokenizer.save_pretrained(folder)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a model's folder.

    Raises:
        OSError: it could not be written.
    """
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(str(error)) from error
