"""B9: what multi-turn tool episodes leave of vLLM's speed: our rollout beside the bare engine.

EPISODES episodes of TURNS turns on one `VllmEngine` (a tiny Qwen3 with random weights, byte vocabulary). The
environment takes whatever is said as its tool's argument, so every turn samples all its tokens. The bare engine, vLLM's
own `AsyncLLM.generate`, is then fed the same requests, those of an episode one after the other, with the same seeds: it
samples the same tokens, which is checked. The prefix cache is emptied before each run; both take turns.

Floor: 0.95 of the bare engine's speed, the ratio in the table. Needs vLLM and torch; on a machine without a GPU vLLM's
CPU build.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from report import Row, arguments, show

from agentrl.engine.base import Request
from agentrl.engine.settings import EngineSettings, VllmSettings
from agentrl.engine.vllm import VllmEngine
from agentrl.env import Env, StepResult, Task
from agentrl.learner.policy import make_tiny
from agentrl.learner.settings import TinySettings
from agentrl.messages import AssistantMessage, Message, ToolMessage, UserMessage
from agentrl.render.parsers.hermes import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tiny_tokenizer import train_tokenizer
from agentrl.render.tokenizer import HFTokenizer
from agentrl.rollout.envs import EnvPool
from agentrl.rollout.episode import Job
from agentrl.rollout.garbage import quiet_garbage
from agentrl.rollout.play import play
from agentrl.rollout.settings import RolloutSettings
from agentrl.trajectory import Completion

EPISODES, TURNS, TOKENS = 128, 4, 48
CONTEXT = 2048


class Counter(Env):
    """Answers every turn with how many characters were said."""

    max_turns = TURNS

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Sequence[Message], Mapping[str, Any]]:
        self.turn = 0
        return [UserMessage(content=f"Episode {seed}. Say anything; the tool counts its characters.")], {}

    async def step(self, action: AssistantMessage) -> StepResult:
        self.turn += 1
        answer = ToolMessage(content=f'{{"characters": {len(action.content)}}}', name="count", call_id="0")
        return StepResult([answer], 0.0, self.turn == TURNS, False, {})

    async def conclude(self, action: AssistantMessage | None) -> Mapping[str, float]:
        return {}


@dataclass
class Kept:
    """An engine that keeps what it was asked and what it answered."""

    engine: VllmEngine
    asked: dict[str, list[tuple[Request, Completion]]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def complete(self, request: Request) -> Completion:
        completion = await self.engine.complete(request)
        self.asked.setdefault(request.episode_id, []).append((request, completion))
        return completion


async def measure(folder: Path, repeats: int) -> list[tuple[float, float]]:
    """Microseconds a sampled token, ours and the bare engine's, `repeats` times."""
    settings = EngineSettings(max_context=CONTEXT, max_batch=EPISODES, vllm=VllmSettings(kv_cache_gib=2.0))
    engine = VllmEngine(folder, settings)
    renderer = Renderer(HFTokenizer(folder), HermesParser())
    limits = RolloutSettings(concurrency=EPISODES, max_tokens_per_turn=TOKENS, max_tokens_per_episode=CONTEXT)
    jobs = [Job(Task("count"), f"g{i}", i) for i in range(EPISODES)]
    await engine.start()
    costs = []
    try:
        for _ in range(repeats + 1):
            kept, envs = Kept(engine), EnvPool(Counter)
            await engine._llm.reset_prefix_cache()
            began = time.perf_counter()
            played = await play(jobs, make_env=envs, engine=kept, renderer=renderer, settings=limits)
            ours = time.perf_counter() - began
            assert not any(each.trajectory.outcome.failed for each in played)
            await engine._llm.reset_prefix_cache()
            began = time.perf_counter()
            answers = await asyncio.gather(*(bare(engine, turns) for turns in kept.asked.values()))
            raw = time.perf_counter() - began
            same = [len(tokens) for tokens in answers]
            assert same == [sum(len(c.token_ids) for _, c in turns) for turns in kept.asked.values()]
            costs.append((1e6 * ours / sum(same), 1e6 * raw / sum(same)))
    finally:
        await engine.close()
    return costs[1:]  # the first run warms up


async def bare(engine: VllmEngine, turns: Sequence[tuple[Request, Completion]]) -> list[int]:
    """Sample an episode's requests one after the other with vLLM itself; their tokens, checked against ours."""
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    tokens: list[int] = []
    for number, (request, completion) in enumerate(turns):
        params = SamplingParams(
            max_tokens=request.sampling.max_tokens,
            temperature=request.sampling.temperature,
            seed=request.sampling.seed % 2**63,
            stop_token_ids=list(request.sampling.stop_ids),
            ignore_eos=True,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = tokens_input(request.prompt_ids.tolist())
        async for output in engine._llm.generate(prompt, params, f"bare/{request.episode_id}/{number}"):
            final = output
        assert np.array_equal(final.outputs[0].token_ids, completion.token_ids)
        tokens += final.outputs[0].token_ids
    return tokens


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer([], 0, Path(folder) / "tokenizer")
        sizes = TinySettings(hidden=256, layers=4, heads=8, kv_heads=4, head_dim=32)
        make_tiny(sizes, Path(folder) / "tokenizer", Path(folder) / "model", seed=0, max_context=CONTEXT)
        with quiet_garbage():  # as in training
            costs = asyncio.run(measure(Path(folder) / "model", 3 if options.quick else 7))
    ours, raw = zip(*costs, strict=True)
    shares = sorted(b / a for a, b in costs)
    print(f"share of the bare engine's speed in each run: {', '.join(f'{share:.3f}' for share in shares)}")
    row = Row(
        f"{EPISODES} episodes x {TURNS} turns x {TOKENS} tokens",
        "us/token",
        median(ours),
        max(ours),
        peer=median(raw),
        peer_name="AsyncLLM.generate, the same requests",
        floor=median(raw) / 0.95,
    )
    show("B9 vLLM", [row], options.json)


if __name__ == "__main__":
    main()
