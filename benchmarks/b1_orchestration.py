"""B1: what a turn costs beside sampling: a scripted engine without latency, four turns of one tool call each.

Floor: the goal of 100 us a turn at 1024 episodes at once, flat from 64 on. `cpu` rows count the time of the processor
alone, which other work on the machine changes less.
"""

from __future__ import annotations

import asyncio
import time

from report import Row, arguments, repeat, show

from agentrl import AssistantMessage, Task, ToolCall, ToolEnv, reward, tool
from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.envs import EnvPool
from agentrl.rollout.episode import Job
from agentrl.rollout.garbage import quiet_garbage
from agentrl.rollout.play import play
from agentrl.rollout.settings import RolloutSettings

TURNS = 4
CALL = AssistantMessage(tool_calls=(ToolCall(id="1", name="echo", arguments={"text": "hello"}),))
ENGINE = ScriptedEngine(canned([CALL] * (TURNS - 1) + ["bye"]))
RENDERER = Renderer(ByteTokenizer(), HermesParser())


class Echo(ToolEnv):
    """Says what it is told."""

    max_turns = TURNS

    @tool
    async def echo(self, text: str) -> str:
        """Say it back.

        Args:
            text: What to say.
        """
        return text

    @reward(kind="outcome")
    async def done(self, task: Task, episode: object) -> float:
        return 1.0


class PlainReward(Echo):
    """Its reward is a plain function, which runs in a thread."""

    @reward(kind="outcome")
    def done(self, task: Task, episode: object) -> float:  # type: ignore[override]
        return 1.0


def main() -> None:
    options = arguments(__doc__ or "")
    times = 3 if options.quick else 7
    rows = []
    with quiet_garbage():  # as in training
        for at_once in (1, 16, 64, 256, 1024):
            rows += measured(f"{at_once} at once", Echo, at_once, times)
        rows += measured("1024 at once, plain def reward", PlainReward, 1024, times)
    show("B1 orchestration", rows, options.json)


def measured(name: str, env: type[Echo], at_once: int, times: int) -> list[Row]:
    """Wall and processor time a turn."""
    settings = RolloutSettings(concurrency=at_once, max_tokens_per_episode=100_000)
    jobs = [Job(Task("go"), f"g{i}", i) for i in range(max(at_once, 64))]
    pool = EnvPool(env)
    cpu: list[float] = []

    async def once() -> None:  # asyncio.run spends a while on printing what it returns
        played = await play(jobs, make_env=pool, engine=ENGINE, renderer=RENDERER, settings=settings)
        assert all(each.trajectory.reward == 1.0 and len(each.trajectory.turns) == TURNS for each in played)

    def measure() -> float:
        began, cpu_began = time.perf_counter(), time.process_time()
        asyncio.run(once())
        cpu.append(1e6 * (time.process_time() - cpu_began) / (TURNS * len(jobs)))
        return 1e6 * (time.perf_counter() - began) / (TURNS * len(jobs))

    median, p95 = repeat(measure, times)
    cpu = sorted(cpu[1:])
    return [
        Row(name, "us/turn", median, p95, floor=100.0),
        Row(f"{name}: cpu", "us/turn", cpu[len(cpu) // 2], cpu[-1], floor=100.0),
    ]


if __name__ == "__main__":
    main()
