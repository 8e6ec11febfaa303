"""The server engine against servers that misbehave: real HTTP, real sockets, and a fault in one place at a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'agentrl[server]'")

from agentrl.engine.base import Engine
from agentrl.engine.server import VllmServerEngine
from agentrl.engine.settings import VllmSettings
from agentrl.errors import EngineFailure, SyncError
from agentrl.learner.sync import Sync
from tests.engine.server_world import (
    GOOD_CONFIG,
    FakeVllm,
    Handler,
    answers,
    gives,
    model_folder,
    open_sockets,
    request,
    resets,
    says_nothing,
    settings,
    truncates,
    until,
)

GENERATE = "/inference/v1/generate"


class Weights:
    def named_tensors(self) -> Iterable[tuple[str, Any]]:
        return ()

    def write(self, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"new weights")


@asynccontextmanager
async def fleet(tmp_path: Path, count: int, **changed: Any) -> AsyncIterator[tuple[VllmServerEngine, list[FakeVllm]]]:
    before = open_sockets()
    servers = [await FakeVllm().start() for _ in range(count)]
    engine = VllmServerEngine(model_folder(tmp_path), settings(*servers, **changed))
    try:
        await engine.start()
        yield engine, servers
    finally:
        await engine.close()
        await engine.close()
        for server in servers:
            await server.stop()
    await until(lambda: open_sockets() == before)


def set_version(name: object) -> Any:
    return lambda choice: choice["weight_versions"][0].update(version=name)


WRONG: dict[str, tuple[Handler, str]] = {
    "500": (answers(500), "answered 500: .*out of luck"),
    "503 without a word": (answers(503, ""), "answered 503"),
    "429": (answers(429), "answered 429"),
    "reset": (resets, "broke off"),
    "truncated": (truncates, "broke off"),
    "half a JSON": (answers(200, '{"choices": [{"tok'), "what is not JSON"),
    "not UTF-8": (answers(200, "null"), "is not vLLM's"),
    "nested too deeply": (answers(200, "[" * 100_000), "what is not JSON"),
    "a page": (answers(200, "<html>"), "what is not JSON"),
    "no choices": (answers(200, '{"choices": []}'), "is not vLLM's"),
    "too few log-probs": (gives(lambda c: c["logprobs"]["content"].pop()), "2 log-probabilities for 3 tokens"),
    "no log-probs": (gives(lambda c: c.update(logprobs=None)), "is not vLLM's"),
    "other tokens' log-probs": (gives(lambda c: c["logprobs"]["content"].reverse()), "of other tokens"),
    "no number": (gives(lambda c: c["logprobs"]["content"][1].update(logprob=-9999.0)), "no log-probability"),
    "above 0": (gives(lambda c: c["logprobs"]["content"][1].update(logprob=0.5)), "no log-probability"),
    "no versions": (gives(lambda c: c.pop("weight_versions")), "0 of 3 tokens which weights"),
    "half of the versions": (gives(lambda c: c["weight_versions"][0].update(end=2)), "2 of 3 tokens which weights"),
    "a gap in versions": (gives(lambda c: c["weight_versions"][0].update(start=1)), "do not follow one another"),
    "weights of a restart": (gives(set_version("default")), "by weights 'default', which it was not given"),
    "weights never given": (gives(set_version(5)), "by weights 5, which it was not given"),
    "stopped at nothing": (gives(lambda c: c.update(finish_reason="stop")), "no stop id"),
    "an error": (gives(lambda c: c.update(finish_reason="error")), "ended with 'error'"),
    "more than asked": (gives(lambda c: c["token_ids"].append(1)), "3 log-probabilities for 4 tokens"),
    "negative token": (gives(lambda c: c["token_ids"].__setitem__(0, -1)), "wanted a list of ids"),
}


@pytest.mark.parametrize("fault", WRONG)
async def test_another_server_serves_what_one_cannot(tmp_path: Path, fault: str) -> None:
    async with fleet(tmp_path, 2) as (engine, (bad, good)):
        bad.wrong[GENERATE] = WRONG[fault][0]
        completion = await engine.complete(request())
        assert completion.token_ids.tolist() == [7, 8, 9]
        assert completion.logprobs.tolist() == [-0.5, -1.0, -1.5]
        assert completion.versions.tolist() == [0, 0, 0]
        assert (bad.count(GENERATE), good.count(GENERATE)) == (2, 2)  # each was examined with one at the start
        assert engine.metrics()["retries"] == 1
        await engine.complete(request())
        assert (bad.count(GENERATE), good.count(GENERATE)) == (2, 3), "the episode stays where it was served"


@pytest.mark.parametrize("fault", WRONG)
async def test_a_fault_that_stays_is_an_engine_failure_that_says_it(tmp_path: Path, fault: str) -> None:
    async with fleet(tmp_path, 1) as (engine, (bad,)):
        bad.wrong[GENERATE], told = WRONG[fault]
        with pytest.raises(EngineFailure, match=rf"tried 4 times: .*{bad.url}{GENERATE}.*{told}"):
            await engine.complete(request())
        assert 2 <= bad.count(GENERATE) <= 5  # one examination, and four tries, save those while it was drained
        del bad.wrong[GENERATE]
        await until(lambda: engine.metrics()["servers"] == 1)
        assert (await engine.complete(request())).token_ids.tolist() == [7, 8, 9]


async def test_a_refused_request_is_not_tried_again(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2) as (engine, servers):
        for server in servers:
            server.wrong[GENERATE] = answers(400, '{"error": "too long"}')
        with pytest.raises(EngineFailure, match=r"refused a request: .* answered 400: .*too long"):
            await engine.complete(request())
        assert sum(server.count(GENERATE) for server in servers) == 3


async def test_a_server_that_stops_answering_is_drained_and_its_requests_go_on_elsewhere(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2, health_deadline_s=5.0) as (engine, (bad, good)):
        bad.hold.clear()
        good.hold.clear()
        running = [asyncio.create_task(engine.complete(request(str(i)))) for i in range(6)]
        await until(lambda: bad.waiting == good.waiting == 3)
        bad.wrong |= dict.fromkeys(("/health", GENERATE), says_nothing)
        good.hold.set()
        done = await asyncio.wait_for(asyncio.gather(*running), 50)  # the bad one says nothing for ten minutes
        assert all(c.token_ids.tolist() == [7, 8, 9] for c in done)
        assert good.count(GENERATE) == 7
        assert engine.metrics()["servers"] == 1
        await until(lambda: bad.waiting == 0)  # what was given up there was told so, by its connection
        bad.wrong.clear()
        await until(lambda: engine.metrics()["servers"] == 2)


async def test_a_request_that_never_ends_has_a_deadline(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1, request_deadline_s=0.2, retries=1) as (engine, (bad,)):
        bad.wrong[GENERATE] = says_nothing
        with pytest.raises(EngineFailure, match=rf"{bad.url}{GENERATE} did not answer within 0.2 s"):
            await engine.complete(request())


async def test_no_server_there_at_all(tmp_path: Path) -> None:
    server = await FakeVllm().start()
    await server.stop()
    engine = VllmServerEngine(model_folder(tmp_path), settings(server))
    with pytest.raises(EngineFailure, match=rf"{server.url} cannot be used: .* broke off: .*[Cc]onnect"):
        await engine.start()


async def test_a_restarted_server_gets_no_more_requests(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2) as (engine, (restarted, good)):
        restarted.weights = "default"
        await until(lambda: engine.metrics()["servers"] == 1)
        await asyncio.gather(*(engine.complete(request(str(i))) for i in range(8)))
        assert (restarted.count(GENERATE), good.count(GENERATE)) == (1, 9)
        await engine.update_weights(Weights(), 1)
        assert restarted.weights == "default"
        good.weights = "agentrl-another-run-0-version-1"  # two runs, one server
        await until(lambda: engine.metrics()["servers"] == 0)
        with pytest.raises(
            EngineFailure, match=r"its weights are 'default'.*restarted.*'agentrl-another-run.*else gave"
        ):
            await engine.complete(request())


async def test_one_failed_request_leaves_the_others_of_its_server_alone(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as (engine, (server,)):
        server.hold.clear()
        running = asyncio.create_task(engine.complete(request("long")))
        await until(lambda: server.waiting == 1)
        server.wrong[GENERATE] = answers(500)
        with pytest.raises(EngineFailure):
            await engine.complete(request("short"))
        server.hold.set()
        assert (await running).token_ids.tolist() == [7, 8, 9]
        assert sum(body["request_id"].split("/")[1] == "long" for body in server.bodies(GENERATE)[1:]) == 1


async def test_a_server_that_missed_a_push_samples_nothing_until_it_has_one(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2) as (engine, (late, good)):
        late.wrong["/pause"] = answers(500)
        await engine.update_weights(Weights(), 1)
        assert engine.version == 1
        late.wrong.clear()
        await asyncio.sleep(0.3)  # it is healthy again, and its weights are old
        done = await asyncio.gather(*(engine.complete(request(str(i))) for i in range(8)))
        assert {v for c in done for v in c.versions.tolist()} == {1}
        assert (late.count(GENERATE), good.count(GENERATE)) == (1, 9)
        await engine.update_weights(Weights(), 2)
        for i in range(8):
            engine.release(str(i))
        done = await asyncio.gather(*(engine.complete(request(str(i))) for i in range(8, 16)))
        assert {v for c in done for v in c.versions.tolist()} == {2}
        assert late.count(GENERATE) == 5


@pytest.mark.parametrize("step", ["/collective_rpc", "/update_weight_version", "/resume"])
async def test_a_push_cut_short_loses_the_server_and_what_runs_on_it(tmp_path: Path, step: str) -> None:
    async with fleet(tmp_path, 2) as (engine, (broken, good)):
        broken.hold.clear()
        good.hold.clear()
        running = [asyncio.create_task(engine.complete(request(str(i)))) for i in range(4)]
        await until(lambda: broken.waiting == good.waiting == 2)
        broken.wrong[step] = answers(500)
        await engine.update_weights(Weights(), 1)
        broken.hold.set()  # whatever it says now, nobody knows by which weights
        good.hold.set()
        done = await asyncio.gather(*running)
        assert all(set(c.versions.tolist()) == {1} for c in done)
        assert good.count(GENERATE) == 5
        broken.wrong.clear()
        await engine.update_weights(Weights(), 2)
        assert engine.metrics()["servers"] == 1, "its weights stay unknown"


async def test_a_push_that_no_server_takes_is_a_failure(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2) as (engine, servers):
        for server in servers:
            server.wrong["/collective_rpc"] = says_nothing
        engine._settings = replace(engine._settings, vllm=VllmSettings(sync_deadline_s=4.0))
        with pytest.raises(EngineFailure, match=r"sync of version 1 .*/collective_rpc did not answer within 4 s.*;.*"):
            await engine.update_weights(Weights(), 1)
        with pytest.raises(EngineFailure, match=r"no server samples: .*push of version 1 was cut short"):
            await engine.complete(request())


async def test_a_cancelled_push_leaves_nothing_that_samples(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as (engine, (server,)):
        server.wrong["/collective_rpc"] = says_nothing
        push = asyncio.create_task(engine.update_weights(Weights(), 1))
        await until(lambda: server.count("/collective_rpc") == 2)  # the first gave it the policy
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push
        with pytest.raises(EngineFailure, match="cancelled halfway"):
            await engine.complete(request())


async def test_servers_are_given_the_policy_before_they_sample(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2) as (engine, servers):
        assert isinstance(engine, Engine)
        for server in servers:
            (reload,) = server.bodies("/collective_rpc")
            assert reload["method"] == "reload_weights"
            assert server.weights.endswith("-version-0")
            assert server.bodies("/pause") == [{"mode": "keep", "clear_cache": "false"}]


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("model_config", {"logprobs_mode": "raw_logprobs"}, "would leave the temperature out"),
        ("model_config", {"generation_config": "auto"}, "may change how it samples"),
        ("model_config", {"max_model_len": 512}, "max_model_len is 512, below engine.max_context = 1024"),
        ("cache_config", {"enable_prefix_caching": False}, "its prefix cache is off"),
    ],
)
async def test_a_server_whose_word_could_not_be_trusted_is_refused(
    tmp_path: Path, part: str, change: dict[str, Any], told: str
) -> None:
    server = await FakeVllm(config=GOOD_CONFIG | {part: GOOD_CONFIG[part] | change}).start()
    try:
        with pytest.raises(EngineFailure, match=rf"{server.url} cannot be used: .*{told}"):
            await VllmServerEngine(model_folder(tmp_path), settings(server)).start()
    finally:
        await server.stop()


async def test_a_server_without_the_calls_is_told_how_to_start(tmp_path: Path) -> None:
    server = await FakeVllm(wrong={"/server_info": answers(404)}).start()
    try:
        with pytest.raises(EngineFailure, match="VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out"):
            await VllmServerEngine(model_folder(tmp_path), settings(server)).start()
    finally:
        await server.stop()


async def test_episodes_spread_over_servers_and_stay(tmp_path: Path) -> None:
    async with fleet(tmp_path, 3) as (engine, servers):
        for server in servers:
            server.hold.clear()
        running = [asyncio.create_task(engine.complete(request(str(i)))) for i in range(9)]
        await until(lambda: [server.waiting for server in servers] == [3, 3, 3])
        homes = [{b["request_id"].split("/")[1] for b in s.bodies(GENERATE) if b["token_ids"]} for s in servers]
        for server in servers:
            server.hold.set()
        await asyncio.gather(*running)
        for _ in range(3):
            for i in range(9):
                await engine.complete(request(str(i)))
        for server, home in zip(servers, homes, strict=True):
            seen = {b["request_id"].split("/")[1] for b in server.bodies(GENERATE) if b["token_ids"]}
            assert seen == home
        engine.release("0")


async def test_cancelling_closes_the_request_on_the_server(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as (engine, (server,)):
        server.hold.clear()
        running = asyncio.create_task(engine.complete(request()))
        await until(lambda: server.waiting == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: server.waiting == 0)
        server.hold.set()
        assert len((await engine.complete(request())).token_ids) == 3


async def test_abort_returns_nothing_where_the_server_gives_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrl.engine.server.sampler.ABORT_DEADLINE_S", 2.0)
    async with fleet(tmp_path, 1) as (engine, (server,)):
        server.hold.clear()
        running = asyncio.create_task(engine.complete(request("long")))
        await until(lambda: server.waiting == 1)
        await engine.abort("long")
        completion = await running
        assert (completion.finish_reason, len(completion.token_ids)) == ("abort", 0)
        (asked, *_) = server.bodies("/abort_requests")
        assert asked["request_ids"] == [f"generate-tokens-{server.bodies(GENERATE)[-1]['request_id']}"]
        await engine.abort("unknown")  # is fine


async def test_what_is_aborted_before_it_was_sent_is_never_sent(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as (engine, (server,)):
        examined = len(server.asked)
        running = asyncio.create_task(engine.complete(request("long")))
        await asyncio.sleep(0)  # its server is chosen
        await engine.abort("long")
        completion = await running
        assert (completion.finish_reason, len(completion.token_ids)) == ("abort", 0)
        await engine.complete(request("another"))
        asked = [body["request_id"].split("/")[1] for body in server.bodies(GENERATE) if body["token_ids"]]
        assert asked == ["another"]
        assert all(path != "/abort_requests" for path, _ in server.asked[examined:])


async def test_close_ends_what_runs(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as (engine, (server,)):
        server.hold.clear()
        running = [asyncio.create_task(engine.complete(request(str(i)))) for i in range(3)]
        await until(lambda: server.waiting == 3)
        await engine.close()
        for task in running:
            with pytest.raises(EngineFailure, match="was closed"):
                await task


async def test_metrics_tell_what_the_servers_tell(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2) as (engine, _):
        assert math.isnan(engine.metrics()["prefix_hit_rate"])
        await engine.complete(request(prompt=5))  # of which 2 were cached
        await engine.complete(request(prompt=3))
        await until(lambda: engine.metrics()["running"] == 4.0)
        told = engine.metrics()
        assert told["prefix_hit_rate"] == pytest.approx(2 / 8)
        assert (told["kv_usage"], told["waiting"], told["requests"], told["retries"]) == (0.25, 2.0, 2.0, 0.0)


async def test_what_does_not_fit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as (engine, (server,)):
        for prompt, told in ((1024, "leaves no room in engine.max_context = 1024"), (0, "no tokens"), (302, "vocabul")):
            with pytest.raises(EngineFailure, match=told):
                await engine.complete(request(prompt=prompt))
        await engine.complete(request(prompt=300, max_tokens=2000))
        assert server.bodies(GENERATE)[-1]["sampling_params"]["max_tokens"] == 724
        assert server.count(GENERATE) == 2


class Expecting:
    """A learner that expects what a good server answers."""

    temperature = 1.0

    def logprobs(self, token_ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return -0.5 * np.arange(1, mask.sum() + 1, dtype=np.float32)


def canary(engine: VllmServerEngine) -> Sync:
    learner: Any = Expecting()
    weights: Any = Weights()
    return Sync(weights, learner, engine, [np.arange(5), np.arange(7)], probe_tokens=3, tolerance=1e-4)


async def test_the_canary_asks_every_server(tmp_path: Path) -> None:
    """Also with more servers than probes, and while episodes keep some of them busy."""
    async with fleet(tmp_path, 7) as (engine, servers):
        for i in range(3):
            await engine.complete(request(f"stays {i}"))
        assert await canary(engine).push(1) == 0.0
        for server in servers:
            assert any("/canary/1/" in body["request_id"] for body in server.bodies(GENERATE) if body["token_ids"])
        servers[5].wrong[GENERATE] = gives(lambda c: c["logprobs"]["content"][0].update(logprob=-0.7))
        with pytest.raises(SyncError, match=r"after the push of version 2 .* disagree by 0.2 nats"):
            await canary(engine).push(2)


async def test_the_canary_goes_on_without_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async with fleet(tmp_path, 3) as (engine, servers):
        servers[1].wrong[GENERATE] = answers(500)
        servers[1].wrong["/health"] = answers(500)
        assert await canary(engine).push(1) == 0.0
        assert engine.metrics()["servers"] == 2
