"""The embedded engine samples what the model says: tokens, log-probabilities, frequencies, prefixes, versions."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from agentrl.engine.base import Engine
from agentrl.engine.hf import engine as hf_module
from agentrl.errors import EngineFailure
from agentrl.trajectory import Completion
from tests.engine.hf_world import (
    Weights,
    greedy_twin,
    is_greedy,
    logprobs_twin,
    prompt,
    request,
    serving,
    tiny_model,
    until,
)

TOLERANCE = 1e-5  # nats, float32

MODEL = tiny_model()
pytestmark = pytest.mark.usefixtures("one_thread")


async def test_is_an_engine_and_samples_the_greedy_tokens() -> None:
    async with serving(MODEL) as engine:
        assert isinstance(engine, Engine)
        for length in (1, 2, 9, 33):
            completion = await engine.complete(request(prompt(length, seed=length), 24, episode=f"e{length}"))
            assert completion.token_ids.tolist() == greedy_twin(MODEL, prompt(length, seed=length), 24)
            assert completion.finish_reason == "length"
            expected = logprobs_twin(MODEL, prompt(length, seed=length), completion.token_ids)
            np.testing.assert_allclose(completion.logprobs, expected, atol=TOLERANCE)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_logprobs_are_of_the_distribution_sampled_from(temperature: float) -> None:
    async with serving(MODEL) as engine:
        completion = await engine.complete(request(prompt(7), 60, temperature=temperature, seed=3))
    expected = logprobs_twin(MODEL, prompt(7), completion.token_ids, temperature)
    np.testing.assert_allclose(completion.logprobs, expected, atol=TOLERANCE)
    assert completion.token_ids.tolist() != greedy_twin(MODEL, prompt(7), 60)


async def test_stop_token_ends_and_is_included() -> None:
    greedy = greedy_twin(MODEL, prompt(7), 20)
    stop = greedy[12]
    async with serving(MODEL) as engine:
        completion = await engine.complete(request(prompt(7), 20, stop=(stop, 96)))
        first = await engine.complete(request(prompt(7), 20, stop=(greedy[0],), episode="f"))
    assert completion.token_ids.tolist() == greedy[: greedy.index(stop) + 1]
    assert completion.finish_reason == "stop"
    assert (first.token_ids.tolist(), first.finish_reason) == (greedy[:1], "stop")


async def test_sampling_frequencies_match_the_softmax() -> None:
    """8 000 draws of the first and 8 000 of the second token; chi-square against the model's probabilities."""
    draws, temperature = 8_000, 1.3
    async with serving(MODEL, max_batch=512) as engine:
        requests = [
            request(prompt(5), 2, episode=f"e{i}", temperature=temperature, seed=i + 7_000_000) for i in range(draws)
        ]
        completions = await asyncio.gather(*[engine.complete(r) for r in requests])
    tokens = np.array([c.token_ids for c in completions])  # [draws, 2]
    with torch.no_grad():
        first = torch.softmax(MODEL(torch.tensor(prompt(5)[None])).logits[0, -1].double() / temperature, 0).numpy()
        after = torch.tensor(np.concatenate([np.tile(prompt(5), (97, 1)), np.arange(97)[:, None]], axis=1))
        second = first @ torch.softmax(MODEL(after).logits[:, -1].double() / temperature, 1).numpy()
    for position, probabilities in enumerate((first, second)):
        counts = np.bincount(tokens[:, position], minlength=97)
        rare = probabilities * draws < 5  # the test wants five expected of each kind, so these are one kind
        observed, expected = counts[~rare], probabilities[~rare] * draws
        if rare.any():
            observed, expected = np.append(observed, counts[rare].sum()), np.append(expected, draws - expected.sum())
        assert len(observed) > 20
        assert chisquare(observed, expected).pvalue > 1e-3


async def test_many_mixed_requests_each_as_if_alone() -> None:
    """64 requests of different prompts, lengths and times of arrival through 24 rows."""

    async def late(index: int) -> Completion:
        for _ in range(index % 7 * 40):
            await asyncio.sleep(0)
        length = 1 + index * 5 % 90
        return await engine.complete(request(prompt(length, index), 1 + index * 11 % 60, episode=f"e{index}"))

    async with serving(MODEL, max_batch=24) as engine:
        completions = await asyncio.gather(*[late(index) for index in range(64)])
    for index, completion in enumerate(completions):
        start, count = prompt(1 + index * 5 % 90, index), 1 + index * 11 % 60
        assert len(completion.token_ids) == count
        assert is_greedy(MODEL, start, completion.token_ids)
        np.testing.assert_allclose(
            completion.logprobs, logprobs_twin(MODEL, start, completion.token_ids), atol=TOLERANCE
        )


async def test_long_prompts_are_computed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_module, "PREFILL_TOKENS", 50)
    async with serving(MODEL) as engine:
        prefill, chunks = engine._model.prefill, []

        def spy(prompts, *rest):  # type: ignore[no-untyped-def]
            chunks.append([len(p.token_ids) for p in prompts])
            return prefill(prompts, *rest)

        monkeypatch.setattr(engine._model, "prefill", spy)
        jobs = [engine.complete(request(prompt(n, n), 5, episode=f"e{n}")) for n in (70, 3, 20, 22, 4, 49)]
        completions = await asyncio.gather(*jobs)
    assert chunks == [[3, 4], [20, 22], [49], [70]]  # 3 * 20 > 50, 2 * 22 <= 50, 2 * 49 > 50
    for n, completion in zip((70, 3, 20, 22, 4, 49), completions, strict=True):
        assert completion.token_ids.tolist() == greedy_twin(MODEL, prompt(n, n), 5)


async def test_equal_prompts_are_computed_once_and_sampled_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(MODEL) as engine:
        prefill, computed = engine._model.prefill, []

        def spy(prompts, *rest):  # type: ignore[no-untyped-def]
            computed.extend(len(p.token_ids) for p in prompts)
            return prefill(prompts, *rest)

        monkeypatch.setattr(engine._model, "prefill", spy)
        jobs = [engine.complete(request(prompt(30), 10, episode=f"e{i}", temperature=1.0, seed=i)) for i in range(8)]
        other = engine.complete(request(prompt(12, 5), 10, episode="other", temperature=1.0))
        *group, single = await asyncio.gather(*jobs, other)
    assert sorted(computed) == [12, 30]
    assert len({tuple(c.token_ids) for c in group}) == 8
    for completion in group:
        expected = logprobs_twin(MODEL, prompt(30), completion.token_ids)
        np.testing.assert_allclose(completion.logprobs, expected, atol=TOLERANCE)
    np.testing.assert_allclose(single.logprobs, logprobs_twin(MODEL, prompt(12, 5), single.token_ids), atol=TOLERANCE)


async def test_the_next_turn_computes_new_tokens_alone_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three turns beside another episode; then a rewritten history; then a released episode."""
    async with serving(MODEL) as engine:
        prefill, computed = engine._model.prefill, []

        def spy(prompts, *rest):  # type: ignore[no-untyped-def]
            computed.append([(p.start, len(p.token_ids)) for p in prompts])
            return prefill(prompts, *rest)

        monkeypatch.setattr(engine._model, "prefill", spy)
        noise = asyncio.create_task(engine.complete(request(prompt(50, 9), 100, episode="noise")))
        history = prompt(20)
        for turn in range(3):
            completion = await engine.complete(request(history, 8, temperature=1.0, seed=turn))
            expected = logprobs_twin(MODEL, history, completion.token_ids)
            np.testing.assert_allclose(completion.logprobs, expected, atol=TOLERANCE)
            history = np.concatenate([history, completion.token_ids, prompt(5, turn)])
        await noise
        assert computed == [[(0, 20), (0, 50)], [(27, 6)], [(40, 6)]]

        rewritten = np.concatenate([history[:10], (history[10:11] + 1) % 97, history[11:]])
        completion = await engine.complete(request(rewritten, 8))
        assert completion.token_ids.tolist() == greedy_twin(MODEL, rewritten, 8)
        again = await engine.complete(request(rewritten, 8))
        assert again.token_ids.tolist() == completion.token_ids.tolist()
        engine.release("e")
        await engine.complete(request(rewritten, 8))
        assert computed[3:] == [[(10, 49)], [(58, 1)], [(0, 59)]]


async def test_kept_prefixes_are_bounded_and_old_ones_go_first() -> None:
    async with serving(MODEL, max_batch=4, max_context=100) as engine:  # so 100 tokens are kept
        for index in range(5):
            await engine.complete(request(prompt(30, index), 6, episode=f"e{index}"))
        assert engine._prefixes.tokens == 70  # two of 35
        assert engine._prefixes.take("e2", prompt(30, 2)) is None
        assert engine._prefixes.take("e4", prompt(30, 4)) is not None


async def test_new_weights_count_from_the_next_token_on() -> None:
    new = tiny_model(seed=1)
    async with serving(MODEL) as engine:
        job = asyncio.create_task(engine.complete(request(prompt(6), 200)))
        await until(lambda: engine._rows and len(engine._rows[0].token_ids) >= 10)
        await engine.update_weights(Weights(new), version=5)
        assert engine.version == 5
        completion = await job
        switch = int((completion.versions == 0).sum())
        assert completion.versions.tolist() == [0] * switch + [5] * (200 - switch)
        assert 10 <= switch < 200
        assert completion.token_ids[:switch].tolist() == greedy_twin(MODEL, prompt(6), switch)

        # The prefix was computed with two versions, so it is not kept; a new turn is of the new weights alone.
        assert engine._prefixes.tokens == 0
        history = np.concatenate([prompt(6), completion.token_ids[:20]])
        after = await engine.complete(request(history, 12))
        assert after.token_ids.tolist() == greedy_twin(new, history, 12)
        assert after.versions.tolist() == [5] * 12
        assert engine._prefixes.tokens == len(history) + 11


async def test_kept_prefixes_are_dropped_with_the_weights_that_made_them() -> None:
    new = tiny_model(seed=1)
    async with serving(MODEL) as engine:
        first = await engine.complete(request(prompt(20), 8))
        await engine.update_weights(Weights(new), version=1)
        history = np.concatenate([prompt(20), first.token_ids])
        second = await engine.complete(request(history, 8))
    assert second.token_ids.tolist() == greedy_twin(new, history, 8)
    np.testing.assert_allclose(second.logprobs, logprobs_twin(new, history, second.token_ids), atol=TOLERANCE)


async def test_wrong_weights_are_refused_whole() -> None:
    new = tiny_model(seed=1)
    async with serving(MODEL) as engine:
        before = await engine.complete(request(prompt(9), 10))
        for change, complaint in (
            (lambda t: t.pop("lm_head.weight"), "1 missing: lm_head.weight"),
            (lambda t: t.update(extra=torch.zeros(1)), "1 unknown to the model: extra"),
            (
                lambda t: t.update({"lm_head.weight": torch.zeros(3, 2)}),
                r"lm_head.weight has shape \(3, 2\), wanted \(97",
            ),
        ):
            source = Weights(new)
            change(source.tensors)
            with pytest.raises(EngineFailure, match=complaint):
                await engine.update_weights(source, version=1)
        after = await engine.complete(request(prompt(9), 10, episode="f"))
    assert engine.version == 0
    assert after.token_ids.tolist() == before.token_ids.tolist()


async def test_tied_weights_have_two_names_and_one_is_enough() -> None:
    old, new = (tiny_model(seed, tie_word_embeddings=True) for seed in (0, 1))
    async with serving(old) as engine:
        await engine.update_weights(Weights(new), version=1)
        completion = await engine.complete(request(prompt(9), 10))
    assert "lm_head.weight" not in Weights(new).tensors
    assert completion.token_ids.tolist() == greedy_twin(new, prompt(9), 10)
