"""B1: what a turn costs beside sampling: an engine without latency, four turns: three calls of a tool, then the answer.

Ours, within the measured time: `play` with everything that a training run has in it: environments from a pool, chat
rendered to token ids, ids parsed to calls, arguments validated, deadlines, ids, masks, log-probabilities, versions and
timings recorded, one async reward, the trajectory sealed. Not in it: the engine, which says prepared ids.

Peers, turn and turn about with us (`make bench-setup`): verifiers, which plays episodes independently, as we do, and
GEM's vector environment, which steps them all in lock-step. What each of them does and does not do in that time stands
at the head of its `peer_*.py`: none renders, parses or records a token. Floor: the goal of 100 us a turn at 1024
episodes at once, flat from 64 on. `cpu` rows count the time of the processor alone, which other work on the machine
changes less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from peers import Missing, Peer, all_peers
from report import Row, arguments, show, spread

from agentrl import AssistantMessage, Task, ToolCall, ToolEnv, reward, tool
from agentrl.engine.base import Request
from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.envs import EnvPool
from agentrl.rollout.episode import Job
from agentrl.rollout.garbage import quiet_garbage
from agentrl.rollout.play import play
from agentrl.rollout.settings import RolloutSettings
from agentrl.trajectory import Completion

Figures = tuple[float, float]  # us a turn, by the clock and by the processor
TURNS = 4
CALL = AssistantMessage(tool_calls=(ToolCall(id="1", name="echo", arguments={"text": "hello"}),))
RENDERER = Renderer(ByteTokenizer(), HermesParser())


class Replay(ScriptedEngine):
    """Plays the script once, and says the same ids ever after.

    A script is rendered to ids, which no engine does: 28 us a turn, or a tenth of the figure.
    """

    def __init__(self) -> None:
        super().__init__(canned([CALL] * (TURNS - 1) + ["bye"]))
        self._said: dict[int, Completion] = {}  # by the length of the prompt: the episodes are all alike

    async def complete(self, request: Request) -> Completion:
        length = len(request.prompt_ids)
        if length not in self._said:
            self._said[length] = await super().complete(request)
        return self._said[length]


ENGINE = Replay()


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
    times = 2 if options.quick else 7
    rows = []
    with quiet_garbage(), all_peers() as peers:  # as in training
        for at_once in (1, 64, 256) if options.quick else (1, 16, 64, 256, 1024):
            rows += measured(f"{at_once} at once", Echo, at_once, times, peers)
        rows += measured("1024 at once, plain def reward", PlainReward, 1024, times, [])
    show("B1 orchestration", rows, options.json)


def measured(name: str, env: type[Echo], at_once: int, times: int, peers: Sequence[Peer | Missing]) -> list[Row]:
    """Wall and processor time a turn, beside each peer's; the first round does not count."""
    play_once = player(env, at_once)
    ours: list[Figures] = []
    theirs: list[list[Figures]] = [[] for _ in peers]
    for turn in range(times + 1):
        measures = [play_once, *(partial(peer.measure, at_once) for peer in peers)]
        for measure, figures in zip(measures, [ours, *theirs], strict=True):
            figure = measure()
            if turn and figure is not None:
                figures.append(figure)
    rows = []
    for which, label in enumerate((name, f"{name}: cpu")):
        median, p95 = spread([figure[which] for figure in ours])
        row = Row(label, "us/turn", median, p95, peer_name="-", floor=100.0)
        for peer, figures in zip(peers, theirs, strict=True):
            peers_median = spread([figure[which] for figure in figures])[0] if figures else None
            rows.append(replace(row, peer=peers_median, peer_name=peer.name))
        rows += [] if peers else [row]
    return rows


def player(env: type[Echo], at_once: int) -> Callable[[], Figures]:
    """What plays at least 64 episodes, `at_once` of them at a time, and says what a turn took."""
    settings = RolloutSettings(concurrency=at_once, max_tokens_per_episode=100_000)
    jobs = [Job(Task("go"), f"g{i}", i) for i in range(max(at_once, 64))]
    pool = EnvPool(env)

    async def play_all() -> None:  # asyncio.run spends a while on printing what it returns
        played = await play(jobs, make_env=pool, engine=ENGINE, renderer=RENDERER, settings=settings)
        assert all(each.trajectory.reward == 1.0 and len(each.trajectory.turns) == TURNS for each in played)

    def play_once() -> Figures:
        began, cpu_began = time.perf_counter(), time.process_time()
        asyncio.run(play_all())
        cpu, wall = time.process_time() - cpu_began, time.perf_counter() - began
        return 1e6 * wall / (TURNS * len(jobs)), 1e6 * cpu / (TURNS * len(jobs))

    return play_once


if __name__ == "__main__":
    main()
