"""A soak of the rollout: 10,000 scripted episodes of four turns, 1024 at once.

Prints how much memory, how many tasks, descriptors and threads there are after a fifth of the episodes and after all of
them, and how late the event loop was; exits with 1 where something grew or the loop was too late. `--quick` plays 2,000
episodes, 256 at once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from agentrl import AssistantMessage, Task, ToolCall, ToolEnv, reward, tool
from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.env.tasks import TaskSource
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.collector import Collector
from agentrl.rollout.garbage import quiet_garbage
from agentrl.rollout.settings import RolloutSettings

TURNS = 4
GROUP_SIZE = 8
CALL = AssistantMessage(tool_calls=(ToolCall(id="1", name="echo", arguments={"text": "hello"}),))
GOAL_LAG_S = 0.05  # the 99th percentile
GOAL_GROWTH_MB = 20.0


class Echo(ToolEnv):
    """Says what it is told, as late as a quick tool would."""

    max_turns = TURNS

    def make_task(self, seed: int) -> Task:
        return Task("go", {"seed": seed})

    @tool
    async def echo(self, text: str) -> str:
        """Say it back.

        Args:
            text: What to say.
        """
        await asyncio.sleep(0.01)
        return text

    @reward(kind="outcome")
    async def done(self, task: Task, episode: object) -> float:
        return 1.0


@dataclass(frozen=True)
class Held:
    """What the process holds after so many episodes."""

    episodes: int
    rss_mb: float
    tasks: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Soak:
    """What a soak found."""

    at: tuple[Held, ...]  # after each fifth
    lag_p99_s: float  # the worst of the fifths
    lag_max_s: float
    seconds: float

    def faults(self) -> Iterator[str]:
        """What missed its goal."""
        first, last = self.at[0], self.at[-1]
        if last.rss_mb - first.rss_mb > GOAL_GROWTH_MB:
            yield f"memory grew by {last.rss_mb - first.rss_mb:.1f} MB"
        for name in ("tasks", "descriptors", "threads"):
            if getattr(last, name) > getattr(first, name):
                yield f"{name} grew from {getattr(first, name)} to {getattr(last, name)}"
        if self.lag_p99_s > GOAL_LAG_S:
            yield f"the loop was late by {1000 * self.lag_p99_s:.0f} ms (99th percentile)"


async def soak(episodes: int, at_once: int) -> Soak:
    """Play `episodes` in five steps of a collector, as training does."""
    groups = episodes // 5 // GROUP_SIZE
    settings = RolloutSettings(
        groups_per_step=groups, group_size=GROUP_SIZE, concurrency=at_once, max_tokens_per_episode=100_000
    )
    engine = ScriptedEngine(canned([CALL] * (TURNS - 1) + ["bye"]), latency_s=0.02)
    renderer = Renderer(ByteTokenizer(), HermesParser())
    collector = Collector(TaskSource(Echo(), "train"), Echo, engine, renderer, settings, seed=0)
    held, lags = [], []
    began = time.perf_counter()
    for step in range(5):
        played = [t for group in await collector.collect(step) for t in group.played]
        assert len(played) == groups * GROUP_SIZE
        assert all(t.reward == 1.0 and len(t.turns) == TURNS for t in played)
        del played
        lags.append(collector.metrics)
        held.append(_held((step + 1) * groups * GROUP_SIZE))
    spent = time.perf_counter() - began
    await collector.close()
    return Soak(tuple(held), _most(lags, "time/loop_lag_p99_s"), _most(lags, "time/loop_lag_max_s"), spent)


def _held(episodes: int) -> Held:
    gc.collect()
    process = psutil.Process()
    rss_mb = process.memory_info().rss / 1e6
    return Held(episodes, rss_mb, len(asyncio.all_tasks()), process.num_fds(), threading.active_count())


def _most(lags: list[Mapping[str, float]], name: str) -> float:
    return max(lag[name] for lag in lags)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--quick", action="store_true", help="fewer episodes: done within a minute")
    options = parser.parse_args()
    with quiet_garbage():  # as in training
        found = asyncio.run(soak(2_000, 256) if options.quick else soak(10_000, 1024))
    print(f"{'episodes':>10} {'MB':>8} {'tasks':>6} {'descriptors':>12} {'threads':>8}")
    for held in found.at:
        print(f"{held.episodes:>10} {held.rss_mb:>8.1f} {held.tasks:>6} {held.descriptors:>12} {held.threads:>8}")
    print(f"loop lag: p99 {1000 * found.lag_p99_s:.1f} ms, max {1000 * found.lag_max_s:.1f} ms; {found.seconds:.1f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    faults = list(found.faults())
    print(*(f"MISSED: {fault}" for fault in faults), sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
