"""The vLLM engine against a real vLLM and a tiny real Qwen3: what it samples, its weights, and its processes.

One engine serves the tests of sampling and of the weights; those that break an engine or kill it start their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

pytest.importorskip(
    "vllm", reason="vLLM is not installed: `make setup-dev` does so on x86-64 Linux", exc_type=ImportError
)

import psutil
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentrl.engine.base import Engine, Request, Sampling
from agentrl.engine.settings import EngineSettings, VllmSettings
from agentrl.engine.vllm import VllmEngine
from agentrl.errors import EngineFailure, MissingDependencyError
from agentrl.trajectory import Completion
from tests.processes import children, left_since, still_running

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

ATTEMPTS = 20  # at catching a request while it runs: held up for long enough, we come too late
VOCABULARY = 300
MODEL_EOS = 7
SETTINGS = EngineSettings(max_context=1024, max_batch=16, vllm=VllmSettings(kv_cache_gib=0.25))
SHORT_PROMPT = np.array([5, 17, 200, 3, 41], dtype=np.int64)
LONG_PROMPT = np.arange(400, dtype=np.int64) * 7 % VOCABULARY  # several blocks of vLLM's prefix cache


def make_model(seed: int, *, tied: bool = False) -> Any:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=MODEL_EOS,
    )
    model = Qwen3ForCausalLM(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)  # far from uniform, so that a wrong weight shows
    return model


class Weights:
    """A model as the learner hands it over."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def named_tensors(self) -> Iterable[tuple[str, Any]]:
        return self.model.named_parameters()

    def write(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


def request(
    prompt: np.ndarray = SHORT_PROMPT, episode_id: str = "episode", max_tokens: int = 32, **sampling: Any
) -> Request:
    return Request(prompt, Sampling(max_tokens=max_tokens, **({"stop_ids": ()} | sampling)), episode_id)


def expected_logprobs(model: Any, prompt: np.ndarray, tokens: np.ndarray, temperature: float) -> np.ndarray:
    """log softmax(logits / T) of each sampled token, by transformers. [C]"""
    ids = torch.from_numpy(np.concatenate([prompt, tokens]))[None]
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1] / temperature
    return torch.log_softmax(logits.double(), -1).gather(1, ids[0, len(prompt) :, None])[:, 0].numpy()


def logprobs_across(old: Any, new: Any, prompt: np.ndarray, tokens: np.ndarray, switch: int) -> np.ndarray:
    """log softmax(logits) of the tokens from `switch` on, where the weights changed before that token was sampled.

    The keys and values of all that the old weights had computed stay: the token sampled last was not computed yet.
    """
    ids = torch.from_numpy(np.concatenate([prompt, tokens]))[None]
    computed = len(prompt) + switch - 1
    with torch.no_grad():
        past = old(ids[:, :computed], use_cache=True).past_key_values
        logits = new(ids[:, computed:-1], past_key_values=past, use_cache=True).logits[0]
    return torch.log_softmax(logits.double(), -1).gather(1, ids[0, computed + 1 :, None])[:, 0].numpy()


@pytest.fixture(autouse=True)
def logs_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets these reads vLLM's log himself: then it is not kept, and errors cannot name what stood in it."""
    for name in ("VLLM_LOGGING_LEVEL", "VLLM_LOGGING_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def first_model() -> Any:
    return make_model(0)


@pytest.fixture(scope="module")
def model_folder(first_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    first_model.save_pretrained(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_engine(model_folder: Path) -> AsyncIterator[VllmEngine]:
    engine = VllmEngine(model_folder, SETTINGS)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(loop_scope="module")
async def engine(shared_engine: VllmEngine, first_model: Any) -> AsyncIterator[VllmEngine]:
    yield shared_engine
    if shared_engine.version != 0:
        await shared_engine.update_weights(Weights(first_model), 0)


async def test_is_an_engine(model_folder: Path) -> None:
    assert isinstance(VllmEngine(model_folder, SETTINGS), Engine)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_logprobs_are_those_of_the_distribution_sampled_from(
    engine: VllmEngine, first_model: Any, temperature: float
) -> None:
    completion = await engine.complete(request(temperature=temperature, max_tokens=64))
    expected = expected_logprobs(first_model, SHORT_PROMPT, completion.token_ids, temperature)
    assert np.abs(completion.logprobs - expected).max() < 1e-4
    assert (completion.versions == 0).all()
    assert completion.finish_reason == "length"


async def test_requests_of_one_batch_keep_their_own_temperature(engine: VllmEngine, first_model: Any) -> None:
    temperatures = [0.0, 0.7, 1.0, 1.5]
    requests = [request(episode_id=f"{t}", temperature=t) for t in temperatures]
    for t, completion in zip(temperatures, await asyncio.gather(*map(engine.complete, requests)), strict=True):
        expected = expected_logprobs(first_model, SHORT_PROMPT, completion.token_ids, t or 1.0)
        assert np.abs(completion.logprobs - expected).max() < 1e-4


async def test_greedy_is_the_greedy_of_transformers(engine: VllmEngine, first_model: Any) -> None:
    completion = await engine.complete(request(temperature=0.0, max_tokens=48))
    ids = torch.from_numpy(SHORT_PROMPT)[None]
    with torch.no_grad():
        for _ in range(48):
            ids = torch.cat([ids, first_model(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert completion.token_ids.tolist() == ids[0, len(SHORT_PROMPT) :].tolist()


async def test_stops_at_and_includes_a_stop_id_and_at_nothing_else(engine: VllmEngine) -> None:
    free = await engine.complete(request(max_tokens=900, seed=3))
    assert MODEL_EOS in free.token_ids[:-1], "the model's own end-of-sequence id must not stop a request"
    stops = tuple(range(10, 20))
    stopped = await engine.complete(request(max_tokens=900, seed=3, stop_ids=stops))
    first = int(np.flatnonzero(np.isin(free.token_ids, stops))[0])
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids.tolist() == free.token_ids[: first + 1].tolist()
    assert len(stopped.logprobs) == first + 1


async def test_equal_seeds_draw_equally_whatever_runs_beside_them(engine: VllmEngine) -> None:
    alone = await engine.complete(request(seed=11))
    crowd = [request(episode_id=str(seed), seed=seed) for seed in range(9, 14)]
    together = await asyncio.gather(*map(engine.complete, crowd))
    assert alone.token_ids.tolist() == together[2].token_ids.tolist()
    assert len({tuple(c.token_ids) for c in together}) == len(crowd)


async def test_context_is_never_overrun(engine: VllmEngine) -> None:
    prompt = np.resize(LONG_PROMPT, engine.max_context - 3)
    assert len((await engine.complete(request(prompt, max_tokens=50))).token_ids) == 3
    with pytest.raises(EngineFailure, match=r"leaves no room in engine.max_context = 1024"):
        await engine.complete(request(np.resize(LONG_PROMPT, engine.max_context)))


async def test_a_token_outside_the_vocabulary_is_an_engine_failure(engine: VllmEngine) -> None:
    with pytest.raises(EngineFailure, match="outside the model's vocabulary of 300"):
        await engine.complete(request(np.array([1, VOCABULARY])))


async def test_abort_returns_what_was_sampled_and_stops(engine: VllmEngine) -> None:
    for _ in range(ATTEMPTS):
        running = asyncio.create_task(engine.complete(request(episode_id="long", max_tokens=1000)))
        await until_sampling(engine, running)
        await engine.abort("long")
        completion = await running
        if 0 < len(completion.token_ids) < 1000:
            break
    assert completion.finish_reason == "abort"
    assert 0 < len(completion.token_ids) < 1000
    assert len(completion.versions) == len(completion.token_ids)
    assert await nothing_runs(engine)
    await engine.abort("unknown")  # is fine


async def test_abort_right_after_the_request_is_not_lost(engine: VllmEngine) -> None:
    running = asyncio.create_task(engine.complete(request(episode_id="long", max_tokens=1000)))
    await asyncio.sleep(0)
    await engine.abort("long")
    assert (await running).finish_reason == "abort"


async def test_what_is_aborted_while_the_weights_change_is_never_sampled(engine: VllmEngine) -> None:
    engine._no_sync.clear()
    running = asyncio.create_task(engine.complete(request(episode_id="long", max_tokens=1000)))
    await asyncio.sleep(0)
    await engine.abort("long")
    engine._no_sync.set()
    completion = await running
    assert (completion.finish_reason, len(completion.token_ids)) == ("abort", 0)
    assert (engine._running, engine._unsent) == ({}, set())


async def test_cancelling_the_task_stops_the_sampling(engine: VllmEngine) -> None:
    running = asyncio.create_task(samples_on_and_on(engine))
    await until_sampling(engine, running)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await nothing_runs(engine)
    assert len((await engine.complete(request(max_tokens=4))).token_ids) == 4


async def test_new_weights_sample_and_are_named_on_every_token(engine: VllmEngine, first_model: Any) -> None:
    second_model = make_model(1)
    for _ in range(ATTEMPTS):
        if engine.version:
            await engine.update_weights(Weights(first_model), 0)
        before = await engine.complete(request(LONG_PROMPT, episode_id="before", max_tokens=8))
        in_flight = asyncio.create_task(engine.complete(request(episode_id="long", max_tokens=1000)))
        await until_sampling(engine, in_flight)
        await engine.update_weights(Weights(second_model), 3)
        assert engine.version == 3
        after = await engine.complete(request(LONG_PROMPT, episode_id="after", max_tokens=8))
        crossing: Completion = await in_flight
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
    new = logprobs_across(first_model, second_model, SHORT_PROMPT, crossing.token_ids, switch)
    assert np.abs(crossing.logprobs[switch:] - new).max() < 1e-4, "new weights, on keys and values of the old ones"


async def test_no_files_stay_after_a_sync(engine: VllmEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.engine.vllm.sync.SHARED_MEMORY", tmp_path)
    await engine.update_weights(Weights(make_model(1)), 4)
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_a_source_that_cannot_write_leaves_the_engine_as_it_was(engine: VllmEngine) -> None:
    class Broken(Weights):
        def write(self, folder: Path) -> None:
            raise OSError("no space left on device")

    with pytest.raises(EngineFailure, match=r"sync of version 9 .* writing the checkpoint: OSError: no space left"):
        await engine.update_weights(Broken(None), 9)
    assert engine.version == 0
    assert (await engine.complete(request(max_tokens=4))).versions.tolist() == [0] * 4


async def test_a_sync_that_hangs_names_the_step(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    class Slow(Weights):
        def write(self, folder: Path) -> None:
            go_on.wait()

    hasty = dataclasses.replace(SETTINGS, vllm=dataclasses.replace(SETTINGS.vllm, sync_deadline_s=0.2))
    monkeypatch.setattr(engine, "_settings", hasty)
    with pytest.raises(EngineFailure, match=r"hangs: writing the checkpoint .*sync_deadline_s = 0\.2 s"):
        await engine.update_weights(Slow(None), 9)
    go_on.set()


async def test_a_failed_reload_ends_every_request_and_close_leaves_no_process(model_folder: Path) -> None:
    class Wrong(Weights):
        def write(self, folder: Path) -> None:
            (folder / "config.json").write_text((model_folder / "config.json").read_text())

    before = children()
    engine = VllmEngine(model_folder, SETTINGS)
    await engine.start()
    assert len(children() - before) >= 2  # the engine core and its worker
    running = asyncio.create_task(samples_on_and_on(engine))
    await until_sampling(engine, running)
    with pytest.raises(EngineFailure, match="sync of version 1 to vLLM failed at reload_weights: "):
        await engine.update_weights(Wrong(None), 1)
    for late in (running, engine.complete(request()), engine.update_weights(Wrong(None), 2)):
        with pytest.raises(EngineFailure, match="samples no more"):
            await late
    await engine.close()
    assert left_since(before) == []
    await engine.close()  # may be called twice
    with pytest.raises(EngineFailure, match="closed"):
        await engine.complete(request())


async def test_a_killed_engine_core_fails_its_requests_and_close_leaves_no_process(model_folder: Path) -> None:
    before = children()
    engine = VllmEngine(model_folder, SETTINGS)
    await engine.start()
    running = asyncio.create_task(samples_on_and_on(engine))
    await until_sampling(engine, running)
    os.kill(engine._processes[0].pid, signal.SIGKILL)
    with pytest.raises(EngineFailure, match="could not sample: its process ended without a word"):
        await running
    assert engine.broken
    await engine.close()
    assert left_since(before) == []
    sampled = engine.metrics()["requests"]
    await engine.start()
    assert engine.broken is None
    waiting = asyncio.create_task(engine.complete(request(max_tokens=4)))
    await asyncio.sleep(0.2)
    assert not waiting.done(), "started again it has its first weights, and waits for those of its version"
    await engine.update_weights(Weights(make_model(1)), 5)
    assert ((await waiting).versions == 5).all()
    assert engine.metrics()["requests"] == sampled + 1
    await engine.close()
    assert left_since(before) == []


async def test_a_start_that_fails_says_what_vllm_said_and_leaves_no_process(model_folder: Path, tmp_path: Path) -> None:
    before = children()
    (tmp_path / "config.json").write_text((model_folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"this is not a checkpoint")
    with pytest.raises(
        EngineFailure, match=r"vLLM did not start: .*Error: .*header.*\(its log: (.*\.log)\)"
    ) as failure:
        await VllmEngine(tmp_path, SETTINGS).start()
    os.unlink(re.search(r"its log: (.*\.log)", str(failure.value))[1])
    assert left_since(before) == []


async def test_a_cancelled_start_leaves_no_process(model_folder: Path) -> None:
    before = children()
    starting = asyncio.create_task(VllmEngine(model_folder, SETTINGS).start())
    while not children() - before:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert left_since(before) == []


async def test_a_start_that_takes_too_long_says_so(model_folder: Path) -> None:
    hasty = dataclasses.replace(SETTINGS, vllm=dataclasses.replace(SETTINGS.vllm, start_deadline_s=0.1))
    with pytest.raises(EngineFailure, match=r"did not start within engine.vllm.start_deadline_s = 0\.1 s"):
        await VllmEngine(model_folder, hasty).start()


PARENT = """
import asyncio, sys
from pathlib import Path
import numpy as np
from agentrl.engine.base import Request, Sampling
from agentrl.engine.settings import EngineSettings, VllmSettings
from agentrl.engine.vllm import VllmEngine

async def main():
    engine = VllmEngine(Path(sys.argv[1]), EngineSettings(max_context=256, vllm=VllmSettings(kv_cache_gib=0.25)))
    await engine.start()
    print("started", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        completion = await engine.complete(Request(np.arange(5), Sampling(max_tokens=4, stop_ids=()), "episode"))
        print(completion.finish_reason, flush=True)

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_processes_survive_ctrl_c_and_die_with_a_killed_parent(model_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(model_folder), **pipes, start_new_session=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    below: list[psutil.Process] = []
    try:
        assert await parent.stdout.readline() == b"started\n"
        below = psutil.Process(parent.pid).children(recursive=True)
        for process in below:
            process.send_signal(signal.SIGINT)  # what the terminal's Ctrl-C does
        parent.stdin.write(b"sample\n")
        assert await parent.stdout.readline() == b"length\n"
        parent.kill()
        assert await asyncio.to_thread(still_running, below) == []
    finally:
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        await parent.wait()


async def test_without_vllm_the_error_says_how_to_install_it(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'agentrl\[train,vllm\]'"):
        VllmEngine(model_folder, SETTINGS)


async def samples_on_and_on(engine: Engine) -> None:
    """One long request after another, so that one runs also when we come late."""
    while True:
        await engine.complete(request(max_tokens=1000))


async def until_sampling(engine: VllmEngine, running: asyncio.Task[Any]) -> None:
    """Wait until the engine holds keys and values of a running request, and some tokens more; or until it has ended."""
    while not running.done() and await nothing_runs(engine):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)


async def nothing_runs(engine: VllmEngine) -> bool:
    """vLLM can reset its prefix cache exactly when no request holds a block of it."""
    return bool(await engine._llm.reset_prefix_cache())
