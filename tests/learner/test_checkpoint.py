"""Checkpoints: complete or absent, and everything comes back."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from agentrl.errors import DataError
from agentrl.learner.checkpoint import keep_latest, latest_checkpoint, load_state, save_checkpoint
from agentrl.learner.policy import load_model


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def _save(root: Path, step: int, model: Qwen3ForCausalLM) -> Path:
    return save_checkpoint(
        root, step, model, _no_tokenizer, {"optimizer": {"m": torch.ones(3)}, "schedule": {}}, {"run": {"a": 1}}
    )


def test_weights_state_facts_and_random_generators_come_back(tmp_path: Path, model: Qwen3ForCausalLM) -> None:
    _save(tmp_path, 3, model)
    drawn = (random.random(), np.random.rand(), torch.rand(2).tolist())
    folder = latest_checkpoint(tmp_path)
    assert folder is not None
    state, facts = load_state(folder)
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == drawn
    assert facts == {"run": {"a": 1}, "step": 3}
    assert torch.equal(state["optimizer"]["m"], torch.ones(3))
    loaded = load_model(folder).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded[name])


def test_a_checkpoint_cut_off_in_writing_is_never_the_latest(tmp_path: Path, model: Qwen3ForCausalLM) -> None:
    kept = _save(tmp_path, 1, model)
    cut = _save(tmp_path, 2, model)
    cut.rename(tmp_path / ".writing-step-00002")
    assert latest_checkpoint(tmp_path) == kept
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_the_first_and_the_latest_are_kept(tmp_path: Path, model: Qwen3ForCausalLM) -> None:
    for step in (0, 5, 99999, 100000):
        _save(tmp_path, step, model)
    keep_latest(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000", "step-100000", "step-99999"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("training_state.pt", b"cut"),
        ("training_state.pt", b""),
        ("training_state.pt", b"\x80\x02}q\x00."),
        ("agentrl.json", b"{}"),
        ("agentrl.json", b"[1]"),
        ("agentrl.json", b"{"),
    ],
)
def test_a_broken_state_is_named(tmp_path: Path, model: Qwen3ForCausalLM, file: str, content: bytes) -> None:
    folder = _save(tmp_path, 1, model)
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=r"step-00001 cannot be resumed .* delete that folder"):
        load_state(folder)


def test_a_broken_model_file_is_named(tmp_path: Path, model: Qwen3ForCausalLM) -> None:
    folder = _save(tmp_path, 1, model)
    (folder / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match="no causal language model could be loaded"):
        load_model(folder)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no causal language model could be loaded from '.*nowhere'"):
        load_model(tmp_path / "nowhere")
