"""Episodes of four turns, a tool call each, for the benchmarks of tools: what they took, and that none is lost."""

from __future__ import annotations

import asyncio
import time
from functools import cache

from agentrl import AssistantMessage, Task, ToolCall, ToolEnv, reward
from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.envs import EnvPool
from agentrl.rollout.episode import Job
from agentrl.rollout.play import play
from agentrl.rollout.settings import RolloutSettings
from agentrl.trajectory import Trajectory

TURNS = 4
ENGINE = ScriptedEngine(canned([AssistantMessage(tool_calls=(ToolCall(id="1", name="work", arguments={}),))]))
RENDERER = Renderer(ByteTokenizer(), HermesParser())


class Tools(ToolEnv):
    """Ends after four calls of its tool `work`, which a subclass gives."""

    max_turns = TURNS

    @reward(kind="outcome")
    async def done(self, task: Task, episode: object) -> float:
        return 1.0


@cache
def pool_of(env: type[Tools]) -> EnvPool:
    """Environments are made once, as in a run."""
    return EnvPool(env)


def play_all(env: type[Tools], episodes: int) -> tuple[float, list[Trajectory]]:
    """Play them all at once: seconds, and a trajectory for each."""
    jobs = [Job(Task("go"), f"g{i}", i) for i in range(episodes)]
    settings = RolloutSettings(concurrency=episodes, max_tokens_per_episode=100_000)
    trajectories: list[Trajectory] = []

    async def played() -> None:
        done = await play(jobs, make_env=pool_of(env), engine=ENGINE, renderer=RENDERER, settings=settings)
        trajectories.extend(each.trajectory for each in done)

    began = time.perf_counter()
    asyncio.run(played())
    spent = time.perf_counter() - began
    assert [t.group_id for t in trajectories] == [job.group_id for job in jobs]
    assert all(t.reward == 1.0 and len(t.turns) == TURNS for t in trajectories)
    return spent, trajectories
