"""The embedded engine as a service: joining, leaving, stopping, failing, refusing, and the same bits every time."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agentrl.engine.hf import HFEngine
from agentrl.engine.hf import engine as engine_module
from agentrl.engine.hf import row as row_module
from agentrl.engine.hf.engine import compute_thread
from agentrl.engine.settings import EngineSettings
from agentrl.errors import EngineFailure
from agentrl.trajectory import Completion
from tests.engine.hf_world import Weights, greedy_twin, is_greedy, prompt, request, serving, tiny_model, until

MODEL = tiny_model()
pytestmark = pytest.mark.usefixtures("one_thread")


async def two_turn_episode(engine: HFEngine, index: int, stall_s: float) -> list[Completion]:
    """An episode whose environment takes some turns of the event loop, and a prompt shared by four episodes."""
    completions = []
    history = prompt(10 + index // 4, index // 4)
    for turn in range(2):
        sampled = await engine.complete(
            request(history, 40, episode=f"e{index}", stop=range(4), temperature=1.0, seed=100 * index + turn)
        )
        completions.append(sampled)
        for _ in range(3 + index % 5):
            time.sleep(stall_s)  # noqa: ASYNC251  the loop is meant to be held
            await asyncio.sleep(0)
        history = np.concatenate([history, sampled.token_ids, prompt(3 + index % 3, index)])
    engine.release(f"e{index}")
    return completions


async def workload(engine: HFEngine, stall_s: float = 0.0) -> list[list[tuple[list[int], bytes]]]:
    episodes = await asyncio.gather(*[two_turn_episode(engine, index, stall_s) for index in range(32)])
    return [[(c.token_ids.tolist(), c.logprobs.tobytes()) for c in episode] for episode in episodes]


@pytest.mark.parametrize("threaded", [False, True])
async def test_the_same_bits_whether_the_environment_is_fast_or_slow(threaded: bool) -> None:
    torch.set_num_threads(2)  # the same bits also where threads share the work
    runs = []
    for stall_s in (0.0, 0.003, 0.0):  # a step of this model takes about 2 ms
        async with serving(MODEL, threaded=threaded, max_batch=20) as engine:
            runs.append(await workload(engine, stall_s))
    assert len({tuple(tokens) for episode in runs[0] for tokens, _ in episode}) > 50
    assert runs[0] == runs[1]
    assert runs[0] == runs[2]


@pytest.mark.parametrize("threaded", [False, True])
async def test_after_a_weight_update_an_old_engine_is_as_good_as_new(threaded: bool) -> None:
    new = tiny_model(seed=1)
    async with serving(MODEL, threaded=threaded) as engine:
        await asyncio.gather(*[engine.complete(request(prompt(90, i), 80, episode=f"x{i}")) for i in range(40)])
        assert engine._model._kv._buffer.shape[2] >= 40
        await engine.update_weights(Weights(new), version=1)
        assert engine._model._kv._buffer.numel() == 0
        old_engine = await workload(engine)
    async with serving(new, threaded=threaded) as engine:
        assert old_engine == await workload(engine)


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_short_request_overtakes_a_long_one(threaded: bool) -> None:
    async with serving(MODEL, threaded=threaded) as engine:
        long = asyncio.create_task(engine.complete(request(prompt(5), 240, episode="long")))
        await until(lambda: engine._rows)
        short = await engine.complete(request(prompt(8), 3, episode="short"))
        assert not long.done()
        assert short.token_ids.tolist() == greedy_twin(MODEL, prompt(8), 3)
        assert is_greedy(MODEL, prompt(5), (await long).token_ids)


async def test_with_a_thread_the_loop_runs_while_the_model_computes_and_an_abort_counts_at_once() -> None:
    async with serving(MODEL, threaded=True) as engine:
        started, go_on = threading.Event(), threading.Event()
        forward = engine._model.decode

        def slow(*arguments):  # type: ignore[no-untyped-def]
            started.set()
            go_on.wait()
            return forward(*arguments)

        engine._model.decode = slow  # type: ignore[method-assign]
        job = asyncio.create_task(engine.complete(request(prompt(5), 4)))
        await until(started.is_set)
        abort = asyncio.create_task(engine.abort("e"))
        await asyncio.sleep(0)  # would hang here if the loop were held
        go_on.set()
        await abort
        assert (len((await job).token_ids), (await job).finish_reason) == (1, "abort")


async def test_a_request_tells_how_long_it_waited_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a step of the model alone moves on, by one second."""
    async with serving(MODEL, max_batch=1) as engine:
        decode, steps = engine._model.decode, []

        def step(*arguments):  # type: ignore[no-untyped-def]
            steps.append(1)
            return decode(*arguments)

        monkeypatch.setattr(engine._model, "decode", step)
        for module in (engine_module, row_module):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(len(steps))))
        first, second = (asyncio.create_task(engine.complete(request(prompt(5), 60, episode=e))) for e in "ab")
        assert (await first).queue_s == 0.0  # it began at once
        assert (await second).queue_s == 59.0  # when the first had ended, whose first token its prompt gave


@pytest.mark.parametrize("threaded", [False, True])
async def test_cancelling_takes_the_row_out_and_the_others_go_on(threaded: bool) -> None:
    async with serving(MODEL, threaded=threaded, max_batch=3) as engine:
        jobs = [asyncio.create_task(engine.complete(request(prompt(5 + i, i), 200, episode=f"e{i}"))) for i in range(4)]
        await until(lambda: len(engine._rows) == 3)
        jobs[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await jobs[0]
        await until(lambda: len(engine._rows) == 3 and not engine._waiting)
        assert engine._prefixes.tokens == 0  # nothing is kept for who does not come back
        for index in (1, 2, 3):  # the fourth got the free row
            assert is_greedy(MODEL, prompt(5 + index, index), (await jobs[index]).token_ids)
        assert not engine._rows


@pytest.mark.parametrize("threaded", [False, True])
async def test_who_is_cancelled_while_waiting_is_never_computed(
    monkeypatch: pytest.MonkeyPatch, threaded: bool
) -> None:
    async with serving(MODEL, threaded=threaded, max_batch=1) as engine:
        prefill, computed = engine._model.prefill, []

        def spy(prompts, *rest):  # type: ignore[no-untyped-def]
            computed.extend(len(p.token_ids) for p in prompts)
            return prefill(prompts, *rest)

        monkeypatch.setattr(engine._model, "prefill", spy)
        jobs = [asyncio.create_task(engine.complete(request(prompt(5 + i), 60, episode=f"e{i}"))) for i in range(3)]
        await until(lambda: engine._rows)
        jobs[1].cancel()
        await asyncio.gather(jobs[0], jobs[2])
        assert computed == [5, 7]


@pytest.mark.parametrize("threaded", [False, True])
async def test_abort_returns_what_was_sampled(threaded: bool) -> None:
    async with serving(MODEL, threaded=threaded, max_batch=1) as engine:
        running = asyncio.create_task(engine.complete(request(prompt(5), 250, episode="a")))
        waiting = asyncio.create_task(engine.complete(request(prompt(6), 250, episode="b")))
        await until(lambda: engine._rows and len(engine._rows[0].token_ids) >= 5)
        await engine.abort("b")
        assert waiting.done()
        await engine.abort("a")
        assert running.done()
        assert not engine._rows
        cut, none = running.result(), waiting.result()
        assert (cut.finish_reason, none.finish_reason) == ("abort", "abort")
        assert is_greedy(MODEL, prompt(5), cut.token_ids)
        assert 5 <= len(cut.token_ids) < 250
        assert len(none.token_ids) == 0
        await engine.abort("a")  # nothing runs any more
        history = np.concatenate([prompt(5), cut.token_ids])
        assert (await engine.complete(request(history, 5, episode="a"))).token_ids.tolist() == greedy_twin(
            MODEL, history, 5
        )


@pytest.mark.parametrize("threaded", [False, True])
async def test_close_fails_what_is_pending_and_may_be_called_twice(threaded: bool) -> None:
    engine = HFEngine(copy.deepcopy(MODEL), EngineSettings(max_context=256, max_batch=1))
    if threaded:
        engine._thread = compute_thread()
    with pytest.raises(EngineFailure, match="call start"):
        await engine.complete(request(prompt(5), 5))
    await engine.start()
    jobs = [asyncio.create_task(engine.complete(request(prompt(5), 250, episode=f"e{i}"))) for i in range(2)]
    await until(lambda: engine._rows)
    await engine.close()
    await engine.close()
    for job in jobs:
        with pytest.raises(EngineFailure, match=r"closed|stopped"):
            await job
    with pytest.raises(EngineFailure, match="not running"):
        await engine.complete(request(prompt(5), 5))
    with pytest.raises(EngineFailure, match="closed"):
        await engine.update_weights(Weights(MODEL), 1)
    with pytest.raises(EngineFailure, match="closed"):
        await engine.start()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hf-engine")]


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_broken_step_fails_its_requests_and_the_engine_goes_on(threaded: bool) -> None:
    async with serving(MODEL, threaded=threaded) as engine:
        decode = engine._model.decode

        def broken(*arguments):  # type: ignore[no-untyped-def]
            raise RuntimeError("out of memory")

        engine._model.decode = broken  # type: ignore[method-assign]
        results = await asyncio.gather(
            *[engine.complete(request(prompt(5 + i), 5, episode=f"e{i}")) for i in range(3)], return_exceptions=True
        )
        assert all(isinstance(result, EngineFailure) and "out of memory" in str(result) for result in results)
        assert isinstance(results[0].__cause__, RuntimeError)
        engine._model.decode = decode  # type: ignore[method-assign]
        completion = await engine.complete(request(prompt(5), 5))
        assert completion.token_ids.tolist() == greedy_twin(MODEL, prompt(5), 5)


@pytest.mark.parametrize("threaded", [False, True])
async def test_breaking_where_rows_move_fails_the_moved_and_not_the_finished(threaded: bool) -> None:
    async with serving(MODEL, threaded=threaded) as engine:
        rearrange = engine._model.rearrange

        def broken(*arguments):  # type: ignore[no-untyped-def]
            raise RuntimeError("out of memory")

        engine._model.rearrange = broken  # type: ignore[method-assign]
        jobs = [engine.complete(request(prompt(5, i), 3 + 50 * i, episode=f"e{i}")) for i in range(2)]
        finished, moved = await asyncio.gather(*jobs, return_exceptions=True)
        assert isinstance(finished, Completion)
        assert isinstance(moved, EngineFailure)
        engine._model.rearrange = rearrange  # type: ignore[method-assign]
        completion = await engine.complete(request(prompt(5), 5))
        assert completion.token_ids.tolist() == greedy_twin(MODEL, prompt(5), 5)


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_broken_prompt_step_leaves_the_running_rows_alone(threaded: bool) -> None:
    async with serving(MODEL, threaded=threaded) as engine:
        long = asyncio.create_task(engine.complete(request(prompt(5), 250, episode="long")))
        await until(lambda: engine._rows)
        prefill = engine._model.prefill

        def broken(*arguments):  # type: ignore[no-untyped-def]
            prefill(*arguments)
            with torch.inference_mode():
                engine._model._kv._buffer[:, :, 1:] = float("nan")  # what a broken step may leave
            raise RuntimeError("out of memory")

        engine._model.prefill = broken  # type: ignore[method-assign]
        with pytest.raises(EngineFailure, match="out of memory"):
            await engine.complete(request(prompt(9), 5))
        engine._model.prefill = prefill  # type: ignore[method-assign]
        again = await engine.complete(request(prompt(9), 5))
        assert again.token_ids.tolist() == greedy_twin(MODEL, prompt(9), 5)
        assert not long.done()
        assert is_greedy(MODEL, prompt(5), (await long).token_ids)


@pytest.mark.parametrize("threaded", [False, True])
async def test_weights_that_are_not_finite_fail_and_leave_nothing_behind(threaded: bool) -> None:
    ruined = copy.deepcopy(MODEL)
    with torch.no_grad():
        ruined.model.layers[0].self_attn.k_proj.weight.fill_(float("nan"))
    async with serving(MODEL, threaded=threaded) as engine:
        await engine.update_weights(Weights(ruined), 1)
        with pytest.raises(EngineFailure, match=r"not finite \(weights version 1\)"):
            await engine.complete(request(prompt(40), 5))
        await engine.update_weights(Weights(MODEL), 2)
        jobs = [engine.complete(request(prompt(3 + 30 * i), 5, episode=f"e{i}")) for i in range(2)]
        for index, completion in enumerate(await asyncio.gather(*jobs)):
            assert completion.token_ids.tolist() == greedy_twin(MODEL, prompt(3 + 30 * index), 5)


@pytest.mark.parametrize("threaded", [False, True])
async def test_limits_of_a_request(threaded: bool) -> None:
    async with serving(MODEL, threaded=threaded, max_context=32) as engine:
        assert engine.max_context == 32
        full = await engine.complete(request(prompt(20), 100))
        assert (len(full.token_ids), full.finish_reason) == (12, "length")
        assert full.token_ids.tolist() == greedy_twin(MODEL, prompt(20), 12)
        last = await engine.complete(request(prompt(31), 100, episode="f"))
        assert (len(last.token_ids), last.finish_reason) == (1, "length")
        for wrong, complaint in (
            (request(prompt(32), 5), "32 tokens and leaves no room in max_context 32"),
            (request(prompt(0), 5), "prompt is empty"),
            (request(prompt(5), 0), "max_tokens is 0"),
            (request(prompt(5), 5, temperature=-1.0), "temperature is -1.0"),
            (request(np.array([3, 97]), 5), "the model knows 0 to 96"),
            (request(np.array([-1, 9]), 5), "the model knows 0 to 96"),
        ):
            with pytest.raises(EngineFailure, match=complaint):
                await engine.complete(wrong)
