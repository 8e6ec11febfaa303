"""The server engine with a real vLLM server and a tiny real Qwen3: what it samples, its weights, its processes.

One server, started from a given interpreter, serves all tests; the last one kills it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

pytest.importorskip(
    "vllm", reason="vLLM is not installed: `make setup-dev` does so on x86-64 Linux", exc_type=ImportError
)

import psutil

from agentrl.engine.server import VllmServerEngine
from agentrl.engine.settings import EngineSettings, ServerSettings, VllmSettings
from agentrl.errors import EngineFailure
from tests.engine.test_vllm import (
    ATTEMPTS,
    LONG_PROMPT,
    SHORT_PROMPT,
    Weights,
    expected_logprobs,
    first_model,
    make_model,
    model_folder,
    request,
    samples_on_and_on,
)
from tests.processes import children, still_running

__all__ = ["first_model", "model_folder"]  # fixtures
pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

SETTINGS = EngineSettings(
    kind="vllm-server",
    max_context=1024,
    max_batch=16,
    vllm=VllmSettings(kv_cache_gib=0.25),
    server=ServerSettings(python=sys.executable, retries=1, health_every_s=0.5),
)


# Until a request runs and has not ended, however busy we are.
DELAYS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 0.02, 1.6, 0.01) * 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_engine(model_folder: Path) -> AsyncIterator[VllmServerEngine]:
    before = children()
    engine = VllmServerEngine(model_folder, SETTINGS)
    await engine.start()
    below = psutil.Process().children(recursive=True)
    yield engine
    await engine.close()
    assert [p for p in await asyncio.to_thread(still_running, below) if p.pid not in before] == []
    await engine.close()  # may be called twice


@pytest_asyncio.fixture(loop_scope="module")
async def engine(shared_engine: VllmServerEngine, first_model: Any) -> AsyncIterator[VllmServerEngine]:
    yield shared_engine
    if shared_engine.version != 0:
        await shared_engine.update_weights(Weights(first_model), 0)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
async def test_logprobs_are_those_of_the_distribution_sampled_from(
    engine: VllmServerEngine, first_model: Any, temperature: float
) -> None:
    completion = await engine.complete(request(temperature=temperature, max_tokens=64))
    expected = expected_logprobs(first_model, SHORT_PROMPT, completion.token_ids, temperature or 1.0)
    assert np.abs(completion.logprobs - expected).max() < 1e-4
    assert (completion.versions == 0).all()
    assert completion.finish_reason == "length"


async def test_equal_seeds_draw_equally_whatever_runs_beside_them(engine: VllmServerEngine) -> None:
    alone = await engine.complete(request(seed=11))
    crowd = [request(episode_id=str(seed), seed=seed) for seed in range(9, 14)]
    together = await asyncio.gather(*map(engine.complete, crowd))
    assert alone.token_ids.tolist() == together[2].token_ids.tolist()
    assert len({tuple(c.token_ids) for c in together}) == len(crowd)


async def test_stops_at_and_includes_a_stop_id_and_at_nothing_else(engine: VllmServerEngine) -> None:
    free = await engine.complete(request(max_tokens=900, seed=3))
    stops = tuple(range(10, 20))
    stopped = await engine.complete(request(max_tokens=900, seed=3, stop_ids=stops))
    first = int(np.flatnonzero(np.isin(free.token_ids, stops))[0])
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids.tolist() == free.token_ids[: first + 1].tolist()


async def test_context_is_never_overrun(engine: VllmServerEngine) -> None:
    prompt = np.resize(LONG_PROMPT, engine.max_context - 3)
    completion = await engine.complete(request(prompt, max_tokens=50))
    assert (len(completion.token_ids), completion.finish_reason) == (3, "length")


async def test_the_prefix_cache_serves_a_second_turn_and_says_so(engine: VllmServerEngine) -> None:
    before = engine.metrics()
    first = await engine.complete(request(LONG_PROMPT, episode_id="turns", max_tokens=8))
    second = np.concatenate([LONG_PROMPT, first.token_ids, SHORT_PROMPT])
    await engine.complete(request(second, episode_id="turns", max_tokens=8))
    after = engine.metrics()
    assert after["requests"] == before["requests"] + 2
    assert after["prefix_hit_rate"] > max(0.05, np.nan_to_num(before["prefix_hit_rate"]))
    assert after["retries"] == 0


async def test_abort_returns_what_was_sampled_and_stops(engine: VllmServerEngine) -> None:
    for delay_s in DELAYS_S:
        running = asyncio.create_task(engine.complete(request(episode_id="long", max_tokens=1000)))
        await asyncio.sleep(delay_s)
        await engine.abort("long")
        completion = await running
        if 0 < len(completion.token_ids) < 1000:
            break
    assert completion.finish_reason == "abort"
    assert 0 < len(completion.token_ids) < 1000
    assert (completion.versions == 0).all()
    assert await soon_nothing_runs(engine)


async def test_abort_right_after_the_request_is_not_lost(engine: VllmServerEngine) -> None:
    running = asyncio.create_task(engine.complete(request(episode_id="long", max_tokens=1000)))
    await asyncio.sleep(0)  # it was not sent yet
    await engine.abort("long")
    completion = await running
    assert (completion.finish_reason, len(completion.token_ids)) == ("abort", 0)


@pytest.mark.parametrize("delay_s", [0.0005, 0.001, 0.002, 0.004, 0.008])
async def test_abort_while_the_request_is_on_its_way_is_not_lost(engine: VllmServerEngine, delay_s: float) -> None:
    """The server may hear of the abort before it knows the request. Held up for long enough, we come too late."""
    for _ in range(ATTEMPTS):
        running = asyncio.create_task(engine.complete(request(episode_id="long", max_tokens=1000)))
        await asyncio.sleep(delay_s)
        await engine.abort("long")
        if (await running).finish_reason == "abort":
            return
    pytest.fail(f"{ATTEMPTS} requests sampled all their tokens, each aborted after {delay_s} s")


async def test_cancelling_the_task_stops_the_sampling(engine: VllmServerEngine) -> None:
    running = asyncio.create_task(samples_on_and_on(engine))
    await until_sampling(engine)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await soon_nothing_runs(engine)


async def test_new_weights_sample_and_are_named_on_every_token(engine: VllmServerEngine, first_model: Any) -> None:
    second_model = make_model(1)
    for delay_s in DELAYS_S:
        if engine.version:
            await engine.update_weights(Weights(first_model), 0)
        before = await engine.complete(request(LONG_PROMPT, episode_id="before", max_tokens=8))
        in_flight = asyncio.create_task(engine.complete(request(episode_id="long", max_tokens=1000)))
        await asyncio.sleep(delay_s)
        await engine.update_weights(Weights(second_model), 3)
        assert engine.version == 3
        after = await engine.complete(request(LONG_PROMPT, episode_id="after", max_tokens=8))
        crossing = await in_flight
        if len(set(crossing.versions.tolist())) > 1:
            break

    assert (before.versions == 0).all()
    assert (after.versions == 3).all()
    # The long prompt was cached by the old weights: a reused prefix would show here.
    assert np.abs(after.logprobs - expected_logprobs(second_model, LONG_PROMPT, after.token_ids, 1.0)).max() < 1e-4
    switch = int(np.argmax(crossing.versions == 3))
    assert 0 < switch < len(crossing.versions)
    assert (crossing.versions[:switch] == 0).all()
    assert (crossing.versions[switch:] == 3).all()
    old = expected_logprobs(first_model, SHORT_PROMPT, crossing.token_ids[:switch], 1.0)
    assert np.abs(crossing.logprobs[:switch] - old).max() < 1e-4, "each version's tokens are the old weights' own"


async def test_no_files_stay_after_a_sync(
    engine: VllmServerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = replace(SETTINGS, server=replace(SETTINGS.server, weights_folder=str(tmp_path)))
    monkeypatch.setattr(engine, "_settings", shared)
    await engine.update_weights(Weights(make_model(1)), 4)
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_a_source_that_cannot_write_leaves_the_engine_as_it_was(engine: VllmServerEngine) -> None:
    class Broken(Weights):
        def write(self, folder: Path) -> None:
            raise OSError("no space left on device")

    with pytest.raises(EngineFailure, match=r"sync of version 9 .* writing the checkpoint: OSError: no space left"):
        await engine.update_weights(Broken(None), 9)
    assert engine.version == 0
    assert (await engine.complete(request(max_tokens=4))).versions.tolist() == [0] * 4


async def test_a_server_that_runs_already_is_given_the_policy(engine: VllmServerEngine, tmp_path: Path) -> None:
    """Another engine, and another policy, on the server that the first one started: as from another machine."""
    third_model = make_model(2)
    third_model.save_pretrained(tmp_path)
    await engine._fleet.close()  # it looks away, and its own tokens must tell it
    async with tcp_address(engine._processes[0].socket) as url:
        there = replace(SETTINGS, server=replace(SETTINGS.server, python="", urls=(url,)))
        guest = VllmServerEngine(tmp_path, there)
        await guest.start()
        completion = await guest.complete(request(max_tokens=32))
        await guest.close()
    expected = expected_logprobs(third_model, SHORT_PROMPT, completion.token_ids, 1.0)
    assert np.abs(completion.logprobs - expected).max() < 1e-4
    with pytest.raises(EngineFailure, match=r"sampled by weights 'agentrl-.*-version-0', which it was not given"):
        await engine.complete(request(max_tokens=4))
    (server,) = engine._fleet.servers
    server.drained = None
    await engine.update_weights(Weights(make_model(0)), 0)
    engine._fleet.watch()
    assert (await engine.complete(request(max_tokens=4))).versions.tolist() == [0] * 4


async def test_a_killed_server_fails_its_requests_and_leaves_no_process(shared_engine: VllmServerEngine) -> None:
    """Runs last: the server is another one afterwards."""
    (process,) = shared_engine._processes
    keeper = psutil.Process(process.keeper.pid)
    below = keeper.children(recursive=True)
    assert len(below) >= 3  # the server, its engine core and a worker
    running = asyncio.create_task(samples_on_and_on(shared_engine))
    await until_sampling(shared_engine)
    keeper.children()[0].kill()
    told = rf"unix:{process.socket}/.*Its process has ended.*its log: {process.log}\)"
    with pytest.raises(EngineFailure, match=told):
        await running
    assert await asyncio.to_thread(still_running, below) == [], "what it had started went with it"
    assert "keeper: the server ended with -9" in process.log.read_text()
    assert "Its process has ended" in (shared_engine.broken or "")
    await shared_engine.close()
    assert process.log.exists(), "it was named in an error"
    process.log.unlink()

    version = shared_engine.version
    await shared_engine.start()
    assert (shared_engine.broken, shared_engine.version) == (None, version)
    waiting = asyncio.create_task(shared_engine.complete(request(max_tokens=4)))
    await asyncio.sleep(0.3)
    assert not waiting.done(), "started again it has its first weights, and waits for those of its version"
    await shared_engine.update_weights(Weights(make_model(1)), 7)
    assert ((await waiting).versions == 7).all()


@contextlib.asynccontextmanager
async def tcp_address(socket: Path) -> AsyncIterator[str]:
    """An address under which a server behind a Unix socket can be reached."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(socket))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def until_sampling(engine: VllmServerEngine) -> None:
    """Wait until the server holds keys and values of a running request, and some tokens more."""
    while await nothing_runs(engine):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)


async def soon_nothing_runs(engine: VllmServerEngine) -> bool:
    """Whether a request is gone after so few questions that it cannot have sampled all of its tokens meanwhile."""
    for _ in range(50):
        if await nothing_runs(engine):
            return True
    return False


async def nothing_runs(engine: VllmServerEngine) -> bool:
    """vLLM can reset its prefix cache exactly when no request holds a block of it."""
    (server,) = engine._fleet.servers
    return bool((await server.client.ask("POST", "/reset_prefix_cache", deadline_s=10))["success"])
