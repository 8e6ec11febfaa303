"""A server that speaks vLLM's calls over real HTTP, and misbehaves when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from agentrl.engine.base import Request, Sampling
from agentrl.engine.settings import EngineSettings, ServerSettings, VllmSettings

VOCABULARY = 300
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

GOOD_CONFIG = {
    "model_config": {"logprobs_mode": "processed_logprobs", "generation_config": "vllm", "max_model_len": 1024},
    "cache_config": {"enable_prefix_caching": True},
}
METRICS = """\
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
vllm:kv_cache_usage_perc{engine="0",model_name="policy"} 0.25
vllm:num_requests_running{engine="0",model_name="policy"} 2.0
vllm:num_requests_waiting{engine="0",model_name="policy"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="x"} 9.0
"""


def good_answer(body: dict[str, Any], version: str, n: int | None = None) -> dict[str, Any]:
    """What vLLM answers: the tokens 7, 8, 9, ... with log-probabilities -0.5, -1, ..."""
    n = body["sampling_params"]["max_tokens"] if n is None else n
    tokens = [7 + i for i in range(n)]
    return {
        "request_id": f"generate-tokens-{body['request_id']}",
        "usage": {
            "prompt_tokens": len(body["token_ids"]),
            "prompt_tokens_details": {"cached_tokens": 2 if len(body["token_ids"]) > 4 else 0},
        },
        "choices": [
            {
                "index": 0,
                "finish_reason": "length",
                "token_ids": tokens,
                "weight_versions": [{"version": version, "start": 0, "end": n}],
                "logprobs": {"content": [{"token_id": t, "logprob": -0.5 * (i + 1)} for i, t in enumerate(tokens)]},
            }
        ],
    }


@dataclass
class FakeVllm:
    """One server. `wrong` replaces the handler of a path; what was asked stands in `asked`."""

    weights: str = "default"
    config: dict[str, Any] = field(default_factory=lambda: GOOD_CONFIG)
    wrong: dict[str, Handler] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)  # clear: generate waits
    waiting: int = 0
    url: str = ""
    _runner: web.AppRunner | None = None

    async def start(self) -> FakeVllm:
        self.hold.set()
        app = web.Application()
        app[SERVER] = self
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    def bodies(self, path: str) -> list[Any]:
        return [body for asked, body in self.asked if asked == path]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.asked.append((request.path, json.loads(text) if text else dict(request.query)))
        if request.path in self.wrong:
            return await self.wrong[request.path](request)
        if request.path == "/inference/v1/generate":
            return await self._generate(json.loads(text))
        if request.path == "/update_weight_version":
            self.weights = json.loads(text)["new_version"]
        pages: dict[str, Any] = {
            "/weight_info": {"weight_version": self.weights},
            "/server_info": {"vllm_config": self.config},
        }
        if request.path == "/metrics":
            return web.Response(text=METRICS)
        return web.json_response(pages.get(request.path, {"status": "ok"}))

    async def _generate(self, body: dict[str, Any]) -> web.StreamResponse:
        if not body["token_ids"]:
            return web.json_response({"error": {"message": "token_ids is empty"}}, status=400)
        self.waiting += 1
        try:
            await self.hold.wait()
        finally:
            self.waiting -= 1
        return web.json_response(good_answer(body, self.weights))


SERVER = web.AppKey("server", FakeVllm)


def settings(*servers: FakeVllm, **changed: Any) -> EngineSettings:
    """No deadline that a busy machine could miss: a test that waits for one sets it."""
    quick = {
        "retries": 3,
        "backoff_s": 0.02,
        "health_every_s": 0.1,
        "health_deadline_s": 60.0,
        "request_deadline_s": 60.0,
    }
    return EngineSettings(
        kind="vllm-server",
        max_context=1024,
        vllm=VllmSettings(sync_deadline_s=60.0, start_deadline_s=60.0),
        server=ServerSettings(urls=tuple(server.url for server in servers), **(quick | changed)),
    )


def model_folder(folder: Path) -> Path:
    """All that the engine reads of a policy."""
    (folder / "config.json").write_text(json.dumps({"vocab_size": VOCABULARY}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def request(episode_id: str = "episode", max_tokens: int = 3, prompt: int = 5, **sampling: Any) -> Request:
    draws = {"stop_ids": ()} | sampling
    return Request(np.arange(prompt, dtype=np.int64), Sampling(max_tokens=max_tokens, **draws), episode_id)


def open_sockets() -> int:
    """Sockets that this process holds open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:  # the listing's own
            continue
    return found


async def until(true: Callable[[], Any], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.01)


def answers(status: int, body: str = '{"error": {"message": "out of luck"}}') -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type="application/json")

    return handle


def gives(change: Callable[[dict[str, Any]], None]) -> Handler:
    """A good answer (of three tokens) with something changed."""

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = good_answer(await request.json(), request.app[SERVER].weights)
        change(answer["choices"][0])
        return web.json_response(answer)

    return handle


async def resets(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(1)
    raise ConnectionResetError


async def truncates(request: web.Request) -> web.StreamResponse:
    """Half of an answer, and then the connection ends."""
    whole = json.dumps(good_answer(await request.json(), request.app[SERVER].weights)).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(whole)), "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def says_nothing(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(600)
    raise AssertionError("it was waited for")
