"""The openai engine over real HTTP: what it sends, what it records, how it fails, and that nobody can train on it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'agentrl[server]'")

from aiohttp import web

from agentrl.cli import main
from agentrl.engine.base import Engine, Request, Sampling
from agentrl.engine.openai import OpenAIEngine
from agentrl.engine.openai.chat import BadChat, chat_messages, read_chat
from agentrl.engine.scripted import Scene
from agentrl.engine.settings import EngineSettings, OpenAISettings
from agentrl.env.registry import make
from agentrl.errors import EngineFailure
from agentrl.messages import AssistantMessage, SystemMessage, ToolCall, ToolMessage, UserMessage
from agentrl.objective.batch import Batch
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.episode import Job
from agentrl.rollout.play import play
from agentrl.rollout.records import read_trajectories, write_trajectories
from agentrl.rollout.settings import RolloutSettings
from agentrl.trajectory import Group, Outcome
from tests.engine.server_world import open_sockets, until

ROOT = Path(__file__).parents[2]
ENV: Any = make("calculator")
RENDERER = Renderer(ByteTokenizer(), HermesParser())


class Endpoint:
    """A chat endpoint that plays the calculator's tasks by looking at the messages, or answers what it is told to."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.queue: list[web.Response | dict[str, Any]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.waiting = self.most = 0  # now, and at once so far
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.hold.wait()
        finally:
            self.waiting -= 1
        if self.queue:
            planned = self.queue.pop(0)
            return planned if isinstance(planned, web.Response) else web.json_response(planned)
        return web.json_response(plays_calculator(body))


def said(
    content: str | None = None, calls: list[tuple[str, str]] | None = None, reason: str = "stop"
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"id": f"abc{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    usage = {"prompt_tokens": 40, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10}}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage}


def plays_calculator(body: dict[str, Any]) -> dict[str, Any]:
    """Calls the calculator with the question's expression, and then says its result."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return said(f"={last['content']}")
    expression = next(m["content"] for m in body["messages"] if m["role"] == "user")
    expression = "".join(c for c in expression if c in "0123456789+-*/() ").strip()
    return said(None, [("calculator", json.dumps({"expression": expression}))], "tool_calls")


@asynccontextmanager
async def endpoint(**changed: Any) -> AsyncIterator[tuple[Endpoint, OpenAIEngine]]:
    before = open_sockets()
    there = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", there.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    chosen = OpenAISettings(**({"url": there.url, "api_key_env": "", "retries": 2, "backoff_s": 0.01} | changed))
    engine = OpenAIEngine("some-model", EngineSettings(kind="openai", max_context=100_000, openai=chosen))
    try:
        await engine.start()
        yield there, engine
    finally:
        await engine.close()
        await engine.close()
        await runner.cleanup()
    await until(lambda: open_sockets() == before)


def request(max_tokens: int = 20, episode_id: str = "e") -> Request:
    scene = Scene(ENV, ENV.make_task(0), [UserMessage(content="6*7?")], random.Random(0), RENDERER)
    sampling = Sampling(max_tokens=max_tokens, stop_ids=RENDERER.stop_ids, temperature=0.5, seed=2**40)
    return Request(np.arange(3), sampling, episode_id, scene)


async def test_what_is_sent_and_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    async with endpoint(api_key_env="MY_KEY") as (there, engine):
        assert isinstance(engine, Engine)
        there.queue = [said("forty-two")]
        completion = await engine.complete(request())
        (body,) = there.bodies
        assert body["model"] == "some-model"
        assert body["messages"] == [{"role": "user", "content": "6*7?"}]
        assert [tool["function"]["name"] for tool in body["tools"]] == ["calculator"]
        assert (body["temperature"], body["max_completion_tokens"], body["seed"]) == (0.5, 20, 2**40 % 2**31)
        assert there.headers[0]["Authorization"] == "Bearer secret"
    assert RENDERER.parse(completion.token_ids) == AssistantMessage(content="forty-two")
    assert completion.finish_reason == "stop"
    assert np.isnan(completion.logprobs).all()
    assert (completion.versions == -1).all()
    assert engine.version == -1


async def test_a_whole_evaluation_by_calls_of_tools_and_no_training_on_it(tmp_path: Path) -> None:
    async with endpoint() as (there, engine):
        jobs = [Job(ENV.make_task(seed), f"g{seed}", seed) for seed in range(4)]
        limits = RolloutSettings(max_tokens_per_turn=50, max_tokens_per_episode=100_000)
        done = await play(jobs, make_env=lambda: make("calculator"), engine=engine, renderer=RENDERER, settings=limits)
        told = engine.metrics()
    played = [each.trajectory for each in done]
    assert [t.outcome for t in played] == [Outcome.TERMINATED] * 4
    assert all(t.reward is not None and t.reward >= 1.0 for t in played)
    assert not any(t.trainable for t in played)
    write_trajectories(tmp_path / "played.parquet", played)
    assert not any(t.trainable for t in read_trajectories(tmp_path / "played.parquet"))
    with pytest.raises(ValueError, match="cannot be trained on"):
        Batch.from_groups([Group(t.group_id, t.task_id, (t,)) for t in played])
    second = next(body for body in there.bodies if body["messages"][-1]["role"] == "tool")
    call, answer = second["messages"][-2:]
    assert call["tool_calls"][0]["id"] == answer["tool_call_id"]
    assert isinstance(call["tool_calls"][0]["function"]["arguments"], str)
    assert (told["requests"], told["prompt_tokens"], told["prefix_hit_rate"]) == (8.0, 320.0, 0.25)


async def test_a_limit_of_the_endpoint_leaves_the_turn_open() -> None:
    async with endpoint() as (there, engine):
        there.queue = [said("one two thr", reason="length")]
        completion = await engine.complete(request())
    assert completion.finish_reason == "length"
    assert RENDERER.stop_ids[0] not in completion.token_ids.tolist()


@pytest.mark.parametrize("arguments", ['{"expression": "6*', "[1]", '{"a": NaN}', "6*7"])
async def test_arguments_that_cannot_be_read_become_an_error_to_the_policy(arguments: str) -> None:
    async with endpoint() as (there, engine):
        there.queue = [said("so:", [("calculator", arguments)], "tool_calls")]
        completion = await engine.complete(request())
    action = RENDERER.parse(completion.token_ids)
    (call,) = action.tool_calls
    assert "cannot be read" in str(call.error)
    assert action.content == "so:"


async def test_passing_failures_are_tried_again_as_late_as_the_endpoint_asks() -> None:
    async with endpoint(retries=3) as (there, engine):
        wait = web.Response(status=429, text="slow down", headers={"Retry-After": "1"})
        there.queue = [wait, web.Response(status=502), {"choices": []}, said("yes")]
        began = asyncio.get_running_loop().time()
        completion = await engine.complete(request())
        assert asyncio.get_running_loop().time() - began >= 1.0
        assert RENDERER.parse(completion.token_ids).content == "yes"
        assert engine.metrics()["retries"] == 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda: web.Response(status=500, text="oh"), r"failed 3 tries: .*/v1/chat/completions answered 500: 'oh'"),
        (lambda: web.Response(text="<html>"), "what is not JSON"),
        (lambda: said("x", reason="content_filter"), "ended with 'content_filter'"),
        (lambda: web.Response(status=401, text="no such key"), "refused a request: .* answered 401: 'no such key'"),
    ],
)
async def test_what_stays_is_an_engine_failure(answer: Any, told: str) -> None:
    async with endpoint() as (there, engine):
        there.queue = [answer() for _ in range(3)]
        with pytest.raises(EngineFailure, match=told):
            await engine.complete(request())


async def test_silence_has_a_deadline() -> None:
    async with endpoint(request_deadline_s=0.3, retries=0, concurrency=2) as (there, engine):
        there.hold.clear()
        running = [asyncio.create_task(engine.complete(request(episode_id=str(i)))) for i in range(4)]
        for task in running:
            with pytest.raises(EngineFailure, match=r"did not answer within 0\.3 s"):
                await task


async def test_the_number_at_once_has_a_bound() -> None:
    async with endpoint(concurrency=2) as (there, engine):
        there.hold.clear()
        running = [asyncio.create_task(engine.complete(request(episode_id=str(i)))) for i in range(4)]
        await until(lambda: there.waiting >= 2)
        await asyncio.sleep(0.1)  # a third would come about now
        there.hold.set()
        await asyncio.gather(*running)
        assert there.most == 2


async def test_abort_cancel_and_close() -> None:
    async with endpoint() as (there, engine):
        there.hold.clear()
        aborted, cancelled, closed = (
            asyncio.create_task(engine.complete(request(episode_id=name))) for name in ("a", "b", "c")
        )
        await until(lambda: there.waiting == 3)
        await engine.abort("a")
        await engine.abort("unknown")
        completion = await aborted
        assert (completion.finish_reason, len(completion.token_ids)) == ("abort", 0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await engine.close()
        for late in (closed, engine.complete(request())):
            with pytest.raises(EngineFailure, match="was closed"):
                await late


async def test_it_takes_no_weights() -> None:
    engine = OpenAIEngine("m", EngineSettings(kind="openai"))
    with pytest.raises(EngineFailure, match="evaluation only: the endpoint takes no weights, and gives neither"):
        await engine.update_weights(None, 1)  # type: ignore[arg-type]
    assert math.isnan(engine.metrics()["prefix_hit_rate"])


def test_ids_of_calls_are_unique_in_the_chat_and_meet_their_answers() -> None:
    call = ToolCall(id="call_0", name="f", arguments={"x": 1})
    turn = [AssistantMessage(tool_calls=(call,)), ToolMessage(content="1", name="f", call_id="call_0")]
    broken = ToolCall(id="call_0", name="", error="the tool call cannot be read")
    chat = chat_messages([SystemMessage(content="s"), *turn, *turn, AssistantMessage(tool_calls=(broken,))])
    ids = [one["id"] for message in chat for one in message.get("tool_calls", ())]
    assert len(set(ids)) == 3
    assert [message["tool_call_id"] for message in chat if message["role"] == "tool"] == ids[:2]
    assert chat[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert chat[-1]["tool_calls"][0]["function"]["name"] == "unnamed"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "tool_calls", "function", "name"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_whatever_an_endpoint_says_is_a_message_or_no_chat(answer: Any) -> None:
    for one in (answer, {"choices": [{"message": answer, "finish_reason": "stop"}]}):
        try:
            read_chat(one)
        except BadChat:
            continue


SUITE = """
name = "s"
[[scenario]]
name = "c"
env = "calculator"
tasks = 3
max_tokens_per_episode = 64
"""


async def test_the_command_line_evaluates_an_endpoint(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    async with endpoint() as (there, _):
        words = ["suite.toml", "--policy", "some-model", "--engine", "openai", "--json", "out.json"]
        words += ["--set", f"engine.openai.url={there.url}", "--set", 'engine.openai.api_key_env=""']
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentrl", "eval", *words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert await asyncio.wait_for(command.wait(), 300) == 0
    assert json.loads((tmp_path / "out.json").read_text())["overall"]["success"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "train.steps=3"], "agentrl eval sets engine.* alone"),
        (["--set", "engine.openai.ulr=x"], "did you mean 'engine.openai.url'?"),
        (["--set", "engine.openai.concurrency=0"], "engine.openai.concurrency is 0, wanted more than 0"),
        (["--set", "engine.openai.url=host"], "wanted an address such as"),
        (["--set", "engine.server.count=2"], "engine.kind is 'openai' and would ignore it"),
        ([], "'OPENAI_API_KEY', and no such variable is set"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["eval", "smoke", "--policy", "m", "--engine", "openai", *words]) == 2
    assert told in capsys.readouterr().err
