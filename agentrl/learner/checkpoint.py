"""Checkpoints: a Hugging Face model folder with the optimiser's and the random generators' state beside it.

What comes in: a model, a tokenizer folder, states. What goes out: folders `step-00020`, each complete or absent:
written under another name, flushed, then renamed. A folder cut off in writing is never loaded.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agentrl.errors import DataError
from agentrl.learner.policy import save_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_STATE = "training_state.pt"
_FACTS = "agentrl.json"


def save_checkpoint(
    root: Path,
    step: int,
    model: PreTrainedModel,
    save_tokenizer: Callable[[Path], None],
    state: Mapping[str, object],
    facts: Mapping[str, Any],
) -> Path:
    """Write `root/step-NNNNN`.

    Args:
        save_tokenizer: writes the policy's tokenizer into a folder.
        state: tensors and numbers for `torch.save` (optimiser, schedule).
        facts: JSON values that the next run needs (stage, step, summary so far).

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    final, temporary = root / f"step-{step:05d}", root / f".writing-step-{step:05d}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        save_model(model, temporary)
        save_tokenizer(temporary)
        _write_state({**state, "random": _random_state()}, temporary / _STATE)
        (temporary / _FACTS).write_text(json.dumps({**facts, "step": step}, indent=2))
        for file in temporary.iterdir():
            _flush(file)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _flush(root)
    return final


def latest_checkpoint(root: Path) -> Path | None:
    """The complete checkpoint of the highest step, or None."""
    found = [folder for folder in _in_order(root) if (folder / _FACTS).exists()]
    return found[-1] if found else None


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read back `(state, facts)` and set the random generators as they were.

    Raises:
        DataError: the folder holds no training state.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_text())
        state: dict[str, Any] = torch.load(folder / _STATE, weights_only=True)
        if not isinstance(facts["step"], int) or not {"optimizer", "schedule"} <= state.keys():
            raise ValueError(f"{_FACTS} or {_STATE} lacks what a run goes on with")
        _set_random_state(state.pop("random"))
    except Exception as error:  # whatever a broken file makes of pickle, zip, JSON or torch
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"{folder} cannot be resumed ({reason}): delete that folder to go on from an earlier checkpoint"
        ) from error
    return state, facts


def keep_latest(root: Path, count: int) -> None:
    """Delete all but the first checkpoint (the start of RL, its reference) and the `count` latest."""
    for folder in _in_order(root)[1:-count]:
        shutil.rmtree(folder, ignore_errors=True)


def _write_state(state: Mapping[str, object], path: Path) -> None:
    try:
        torch.save(state, path)
    except RuntimeError as error:  # how torch's own writer says that the disk is full
        raise OSError(str(error)) from error


def _in_order(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))


def _random_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": list(random.getstate()[1]),
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate((3, tuple(state["python"]), None))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
