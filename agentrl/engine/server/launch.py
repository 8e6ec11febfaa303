"""Servers before they sample: wait until those that agentrl started are up, and see that all are fit for training.

What comes in: servers, their processes, `[engine]`. What goes out: servers that answer, or an `EngineFailure` that says
what is wrong with which. A server that reports other probabilities than it samples from would falsify every importance
ratio, so its configuration is read, not believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentrl.engine.http import HttpError
from agentrl.engine.server.process import ServerProcess
from agentrl.engine.server.push import name_weights
from agentrl.engine.server.server import Server
from agentrl.engine.settings import EngineSettings
from agentrl.errors import EngineFailure

POLL_S = 0.2
_FLAGS = "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs"


def vocabulary(model: str) -> float:
    """Number of token ids of a checkpoint folder, or of a hub name that is in the cache; infinite where it is not.

    An id that is not in the vocabulary ends a vLLM server, and tried again, the next one.
    """
    config = Path(model) / "config.json"
    if not config.is_file() and importlib.util.find_spec("huggingface_hub") is not None:
        from huggingface_hub import try_to_load_from_cache

        with contextlib.suppress(ValueError):  # a path is no hub name
            found = try_to_load_from_cache(model, "config.json")
            config = Path(found) if isinstance(found, str) else config
    if not config.is_file():
        return math.inf
    table = json.loads(config.read_text(encoding="utf-8"))
    table = table.get("text_config", table)
    return int(table["vocab_size"]) if "vocab_size" in table else math.inf


async def await_ready(
    servers: Sequence[Server], processes: Sequence[ServerProcess], settings: EngineSettings, name: str
) -> None:
    """Wait until servers that agentrl started are up; their weights, the policy's, get `name` as version 0.

    Raises:
        EngineFailure: one ended, or was not up within `engine.vllm.start_deadline_s`.
    """
    deadline_s = settings.vllm.start_deadline_s
    late = ""
    try:
        async with asyncio.timeout(deadline_s):
            for server, process in zip(servers, processes, strict=True):
                late = f" ({process.name}, its log: {process.log})"
                await _healthy(server, process, deadline_s)
                await examine(server, settings, deadline_s=deadline_s)
                await name_weights(server, name, 0, deadline_s=deadline_s)
    except TimeoutError as error:
        for process in processes:
            process.failed = True
        raise EngineFailure(
            f"a vLLM server did not start within engine.vllm.start_deadline_s = {deadline_s:g} s{late}"
        ) from error
    except HttpError as error:
        raise EngineFailure(f"a vLLM server does not work: {error}{late}") from error


async def _healthy(server: Server, process: ServerProcess, deadline_s: float) -> None:
    while True:
        if process.ended:
            raise EngineFailure(f"a vLLM server did not start: {process.explain()}")
        try:
            await server.client.ask("GET", "/health", deadline_s=deadline_s)
            return
        except HttpError:
            await asyncio.sleep(POLL_S)


async def examine(server: Server, settings: EngineSettings, *, deadline_s: float) -> None:
    """See that a server has the calls that are needed, and a configuration that does not falsify what it says.

    Raises:
        EngineFailure: what is wrong, and how to start it instead.
    """
    try:
        info = await server.client.ask("GET", "/server_info", query={"config_format": "json"}, deadline_s=deadline_s)
        model, cache = _part(info, "model_config"), _part(info, "cache_config")
        probe: Any = {"token_ids": []}  # refused as empty where the call is there, and as unknown where it is not
        await server.client.ask("POST", "/inference/v1/generate", probe, deadline_s=deadline_s)
    except HttpError as error:
        if error.status == 400:
            return _judge(server, model, cache, settings)
        raise EngineFailure(
            f"{server.name} cannot be used: {error}. It must be vLLM 0.32 or newer, started with: {_FLAGS}"
        ) from error
    raise EngineFailure(f"{server.name} cannot be used: it answers an empty prompt; is it vLLM?")


def _judge(server: Server, model: Mapping[str, Any], cache: Mapping[str, Any], settings: EngineSettings) -> None:
    wrong = []
    if model.get("logprobs_mode") != "processed_logprobs":
        wrong.append(f"its logprobs_mode is {model.get('logprobs_mode')!r}, and would leave the temperature out")
    if model.get("generation_config") != "vllm" or model.get("override_generation_config"):
        wrong.append("its generation_config may change how it samples: start it with --generation-config vllm")
    if not cache.get("enable_prefix_caching"):
        wrong.append("its prefix cache is off: start it with --enable-prefix-caching")
    longest = model.get("max_model_len")
    if not isinstance(longest, int) or longest < settings.max_context:
        wrong.append(
            f"its max_model_len is {longest}, below engine.max_context = {settings.max_context}: lower the latter, or "
            "start it with a larger one"
        )
    if wrong:
        raise EngineFailure(f"{server.name} cannot be used: {'; '.join(wrong)}. Start it with: {_FLAGS}")


def _part(info: Any, name: str) -> Mapping[str, Any]:
    part = info.get("vllm_config", {}).get(name) if isinstance(info, dict) else None
    return part if isinstance(part, dict) else {}
