"""Which models the embedded engine can serve.

What comes in: a model. What goes out: the shape of its key-value cache, or an error that says why it cannot be served
and what to use instead. Knows no requests.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from agentrl.engine.hf.cache import CacheShape
from agentrl.errors import ConfigError

NEEDED_ARGUMENTS = ("input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep")


def check_servable(model: Any, max_context: int) -> None:
    """Check a model before it is touched.

    Raises:
        ConfigError: it is no transformers causal model whose layers all attend to the full context, or it was made for
            fewer than `max_context` positions.
    """
    if not isinstance(model, PreTrainedModel):
        raise ConfigError(f"engine 'hf' wants a transformers causal language model, got {type(model).__name__}")
    arguments = inspect.signature(model.forward).parameters
    lacking = [name for name in NEEDED_ARGUMENTS if name not in arguments]
    if lacking or model.config.is_encoder_decoder:
        raise _refusal(model, f"its forward has no {', '.join(lacking)}" if lacking else "it is an encoder-decoder")
    kinds = {
        type(layer).__name__ for layer in DynamicCache(config=model.config).layers if type(layer) is not DynamicLayer
    }
    if kinds:
        raise _refusal(model, f"it has layers with other than full attention ({', '.join(sorted(kinds))})")
    if not (model._supports_sdpa and model._can_set_attn_implementation()):
        raise _refusal(model, "its attention cannot be exchanged")
    positions = model.config.get_text_config().to_dict().get("max_position_embeddings")
    if positions is not None and positions < max_context:
        raise ConfigError(
            f"engine.max_context is {max_context} tokens, but the model was made for {positions} positions; "
            f"set engine.max_context to {positions} or less"
        )


@torch.inference_mode()
def cache_shape(model: Any) -> CacheShape:
    """Return what one position of the model's cache holds, found by computing one token.

    Raises:
        ConfigError: the layers' keys and values are not all of one shape.
    """
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=model.device), past_key_values=cache, use_cache=True)
    tensors = [states for layer in cache.layers for states in (layer.keys, layer.values)]
    shapes = {tuple(states.shape) if states is not None else () for states in tensors}
    if len(shapes) != 1 or () in shapes:
        raise _refusal(model, f"its layers' keys and values have the shapes {sorted(shapes)}, not one for all")
    _, heads, _, head_dim = shapes.pop()
    return CacheShape(layers=len(cache.layers), heads=heads, head_dim=head_dim)


def _refusal(model: Any, why: str) -> ConfigError:
    return ConfigError(f"engine 'hf' cannot serve {type(model).__name__}: {why}; use engine.kind = \"vllm\"")
