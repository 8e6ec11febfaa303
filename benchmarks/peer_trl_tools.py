"""TRL's own tool loop on tools that take 50 ms: seconds for 64 episodes of four calls, on stdout.

Runs in the environment of `make parity-setup`. Generation, the chat template and the parsing of what was generated are
stubs that cost nothing, so that the time is that of the tools as TRL's `GRPOTrainer` runs them.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from types import SimpleNamespace

from trl.trainer import grpo_trainer

EPISODES, CALLS, TOOL_S = 64, 4, 0.05
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "work", "arguments": {}}}]}


async def waits() -> str:
    await asyncio.sleep(TOOL_S)
    return "done"


def blocks() -> str:
    time.sleep(TOOL_S)
    return "done"


def main(kind: str) -> None:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    generated = 1

    def generate(prompts: list[list[int]], *_: object, **__: object) -> tuple[list[list[int]], None]:
        nonlocal generated
        generated += 1
        return [[1] for _ in prompts], None

    grpo_trainer.parse_response = lambda *_, **__: CALL if generated <= CALLS else {"role": "assistant", "content": ""}
    trainer = SimpleNamespace(
        max_tool_calling_iterations=CALLS + 1,
        max_completion_length=10_000,
        model=SimpleNamespace(config=SimpleNamespace(max_position_embeddings=10_000)),
        use_vllm=False,
        environment_factories=None,
        tools=[waits, blocks],
        async_loop=loop,
        _is_vlm=False,
        _tokenizer=None,
        _sync_tool_dicts=[{"work": blocks} if kind == "blocking" else {}] * EPISODES,
        _async_tool_dicts=[{"work": waits} if kind == "async" else {}] * EPISODES,
        _get_tool_suffix_ids=lambda messages: [1, 2, 3],
        _generate_single_turn=generate,
    )
    prompts = [[{"role": "user", "content": "go"}] for _ in range(EPISODES)]
    ids, completions = [[[1] for _ in prompts] for _ in range(2)], [[CALL] for _ in prompts]
    began = time.perf_counter()
    done = grpo_trainer.GRPOTrainer._tool_call_loop(trainer, prompts, *ids, completions, None, None, {})
    spent = time.perf_counter() - began
    assert done[4:6] == (EPISODES * CALLS, 0), done[4:6]
    print(spent)


if __name__ == "__main__":
    main(sys.argv[1])
