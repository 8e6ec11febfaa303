"""What a run is built from: device, policy, renderer, engine, learner.

What comes in: a recipe and the run's folder. What goes out: the parts, each knowing nothing of the others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from agentrl.engine.base import Engine
from agentrl.engine.scripted import ScriptedEngine
from agentrl.engine.settings import EngineSettings
from agentrl.env.base import Env
from agentrl.env.calling import invoke
from agentrl.env.registry import make
from agentrl.env.tasks import TaskSource
from agentrl.errors import ConfigError, UnknownNameError
from agentrl.learner.policy import load_model, make_tiny
from agentrl.render.parsers.detect import choose_parser
from agentrl.render.renderer import Renderer
from agentrl.render.tiny_tokenizer import train_tokenizer
from agentrl.render.tokenizer import ByteTokenizer, HFTokenizer, Tokenizer
from agentrl.rollout.collector import Collector
from agentrl.train.disk import needed
from agentrl.train.recipe import LaunchSettings, Recipe

if TYPE_CHECKING:
    from agentrl.learner.policy import PreTrainedModel

_TOKENIZER_EPISODES = 256


def find_device(launch: LaunchSettings) -> tuple[str, torch.dtype]:
    """The torch device, and the dtype of matrix work on it.

    Raises:
        ConfigError: a GPU is asked for and torch sees none.
    """
    device = launch.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"launch.device = {device!r}, but torch sees no GPU: use launch.device = 'cpu' or 'auto'")
    if launch.dtype == "auto":
        return device, torch.bfloat16 if device.startswith("cuda") else torch.float32
    return device, {"float32": torch.float32, "bfloat16": torch.bfloat16}[launch.dtype]


def make_env(recipe: Recipe) -> Env:
    return make(recipe.env.id, **recipe.env.settings)


async def policy_folder(recipe: Recipe, folder: Path) -> str:
    """Where the policy is loaded from. A tiny one is made in the run's `folder` first, unless it stands there already.

    Raises:
        RunStoppedError: it cannot be written.
    """
    if recipe.policy.path != "tiny":
        return expanded(recipe.policy.path)
    texts = await demonstrations(recipe, _TOKENIZER_EPISODES) if recipe.policy.tiny.merges else []
    with needed(folder, folder.parent):
        make_policy(recipe, texts, folder)
    return str(folder)


def expanded(path: str) -> str:
    """A path with its `~` replaced; hub names have none."""
    return os.path.expanduser(path)


def make_policy(recipe: Recipe, texts: Sequence[str], folder: Path) -> None:
    """Make a tiny policy and its tokenizer, complete or not at all; one that stands there is kept."""
    if folder.exists():
        return
    making = folder.with_name(f".making-{folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    tiny, max_context = recipe.policy.tiny, recipe.engine.max_context
    train_tokenizer(texts, tiny.merges, making / "tokenizer")
    make_tiny(tiny, making / "tokenizer", making, seed=recipe.seed, max_context=max_context)
    shutil.rmtree(making / "tokenizer")
    making.rename(folder)


async def demonstrations(recipe: Recipe, count: int) -> list[str]:
    """Texts of demonstrated episodes, as the chat template writes them: what a tiny tokenizer is learnt from."""
    tokenizer = ByteTokenizer()
    settings = replace(recipe.rollout, groups_per_step=count, group_size=1, oversample=1.0)
    settings = replace(settings, max_tokens_per_episode=1_000_000)
    renderer = make_renderer(tokenizer, "auto")
    env = make_env(recipe)
    tasks = TaskSource(env, "train")
    collector = Collector(tasks, lambda: make_env(recipe), ScriptedEngine("demo"), renderer, settings, seed=recipe.seed)
    try:
        groups = await collector.collect(0)
    finally:
        await collector.close()
        await invoke(env.close)
    return [tokenizer.decode(s.token_ids.tolist()) for g in groups for t in g.trajectories for s in t.segments]


def make_renderer(tokenizer: Tokenizer, parser: str) -> Renderer:
    """The renderer of a tokenizer's chats; `parser` is the setting `policy.parser`.

    Raises:
        UserError: there is no such parser, or the chat template does not go with it.
    """
    return Renderer(tokenizer, choose_parser(parser, tokenizer))


def load_teacher(path: str, tokenizer: HFTokenizer, device: str) -> PreTrainedModel:
    """Load the model whose log-probs the objective reads.

    Args:
        tokenizer: the policy's.

    Raises:
        DataError: there is no model at `path`.
        ConfigError: its tokens are not the policy's.
    """
    ours, theirs = tokenizer.vocabulary(), HFTokenizer(expanded(path)).vocabulary()
    wrong = [token for token, i in ours.items() if theirs.get(token) != i]
    if wrong:
        raise ConfigError(
            f"learner.teacher {path!r} has another tokenizer than the policy: {len(wrong)} of {len(ours)} tokens, "
            f"{wrong[0]!r} among them, have another id there or none. Give a model of the policy's own family"
        )
    return load_model(expanded(path), device=device)


def make_engine(settings: EngineSettings, policy: str, device: str, dtype: torch.dtype, *, seed: int) -> Engine:
    """The engine, not started, with its own copy of the policy's weights.

    Raises:
        UnknownNameError: there is no such engine.
        MissingDependencyError: its package is not installed.
        DataError: there is no model at `policy`.
    """
    if settings.kind == "hf":
        from agentrl.engine.hf import HFEngine

        return HFEngine(load_model(policy, device=device, dtype=dtype), settings, device=device, dtype=dtype)
    if settings.kind == "vllm":
        from agentrl.engine.vllm import VllmEngine

        return VllmEngine(Path(policy), settings, dtype=str(dtype).removeprefix("torch."), seed=seed)
    if settings.kind == "vllm-server":
        from agentrl.engine.server import VllmServerEngine

        return VllmServerEngine(policy, settings, dtype=str(dtype).removeprefix("torch."), seed=seed)
    raise UnknownNameError("engine", settings.kind, ("hf", "vllm", "vllm-server"))
