"""Who plays: `--policy` to an engine and the renderer of its tokens.

In: a run folder, a checkpoint folder, a hub name, `scripted:NAME`, or a model's name at an endpoint. Out: an engine,
not started. Scripts and endpoints need no torch and no model.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentrl.config.checks import check_model_path, check_tools
from agentrl.config.engines import check_sampler
from agentrl.config.recipes import read_toml
from agentrl.engine.base import Engine
from agentrl.engine.scripted import ScriptedEngine
from agentrl.engine.settings import EngineSettings
from agentrl.env.base import Env
from agentrl.errors import ConfigError, MissingDependencyError
from agentrl.render.parsers import AUTO, HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer, HFTokenizer


@dataclass(frozen=True, slots=True)
class Player:
    engine: Engine
    renderer: Renderer


def load_player(
    policy: str, settings: EngineSettings, envs: Sequence[Env], *, seed: int, parser: str | None = None
) -> Player:
    """Load the policy into the engine that `settings` names.

    Args:
        envs: one of each kind that will be played.
        parser: as `policy.parser`; None: the run's own, or "auto" where `policy` is no run folder. A script writes
            calls in the Hermes form alone.

    Raises:
        UserError: there is no such script, run or model, or the engine is not installed.
    """
    if policy.startswith("scripted:"):
        return Player(ScriptedEngine(policy.removeprefix("scripted:")), Renderer(ByteTokenizer(), HermesParser()))
    if settings.kind == "openai":
        check_sampler(settings)
        from agentrl.engine.openai import OpenAIEngine

        return Player(OpenAIEngine(policy, settings), Renderer(ByteTokenizer(), HermesParser()))
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("a model needs torch, which is not installed: pip install 'agentrl[train]'")
    check_sampler(settings)
    parser = parser or _parser(policy)
    for env in envs:
        check_tools(parser, env)
    model = _model(policy)
    from agentrl.train.build import find_device, make_engine, make_renderer
    from agentrl.train.recipe import LaunchSettings

    settings = replace(settings, max_context=min(settings.max_context, _positions(model)))
    device, dtype = find_device(LaunchSettings())
    return Player(make_engine(settings, model, device, dtype, seed=seed), make_renderer(HFTokenizer(model), parser))


def _model(policy: str) -> str:
    """The model's folder, or its hub name: of a run folder, the latest checkpoint."""
    folder = Path(policy).expanduser()
    if (folder / "config.toml").is_file():
        from agentrl.learner.checkpoint import latest_checkpoint

        latest = latest_checkpoint(folder / "checkpoints")
        if latest is None:
            raise ConfigError(f"--policy {policy}: no checkpoint yet; go on with agentrl train --resume {policy}")
        return str(latest)
    check_model_path(policy, "--policy")
    return policy


def _parser(policy: str) -> str:
    """What the run was trained with; checkpoints and hub names go by their chat template."""
    config = Path(policy).expanduser() / "config.toml"
    return str(read_toml(config).get("policy", {}).get("parser", AUTO)) if config.is_file() else AUTO


def _positions(model: str) -> int:
    """How many tokens the model was made for, where its folder says so."""
    config = Path(model).expanduser() / "config.json"
    if not config.is_file():
        return sys.maxsize
    return int(json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings", sys.maxsize))
