"""B1: what a turn costs beside sampling: a scripted engine without latency, four turns of one tool call each.

Floor: the goal of 100 us a turn at 1024 episodes at once, flat from 64 on.
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
from agentrl.rollout.play import play
from agentrl.rollout.settings import RolloutSettings

TURNS = 4
CALL = AssistantMessage(tool_calls=(ToolCall(id="1", name="echo", arguments={"text": "hello"}),))


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
    def done(self, task: Task, episode: object) -> float:
        return 1.0


def main() -> None:
    options = arguments(__doc__ or "")
    renderer = Renderer(ByteTokenizer(), HermesParser())
    engine = ScriptedEngine(canned([CALL] * (TURNS - 1) + ["bye"]))
    rows = []
    for at_once in (1, 16, 64, 256, 1024):
        settings = RolloutSettings(concurrency=at_once, max_tokens_per_episode=100_000)
        episodes = max(at_once, 64)
        jobs = [Job(Task("go"), f"g{i}", i) for i in range(episodes)]
        pool = EnvPool(Echo)

        def measure(jobs: list[Job] = jobs, settings: RolloutSettings = settings, pool: EnvPool = pool) -> float:
            call = play(jobs, make_env=pool, engine=engine, renderer=renderer, settings=settings)
            began = time.perf_counter()
            trajectories = [played.trajectory for played in asyncio.run(call)]
            spent = time.perf_counter() - began
            assert all(t.reward == 1.0 and len(t.turns) == TURNS for t in trajectories)
            return 1e6 * spent / (TURNS * len(jobs))

        median, p95 = repeat(measure, 3 if options.quick else 7)
        rows.append(Row(f"{at_once} episodes at once", "us/turn", median, p95, floor=100.0))
    show("B1 orchestration", rows, options.json)


if __name__ == "__main__":
    main()
