"""B3: one tool call in twenty never comes back. 64 episodes of four calls of 50 ms, all at once; a deadline of 0.5 s.

Floor: what the unluckiest episode needs alone, its calls and deadlines one after the other. The goal is to end within
one deadline of it, with every episode there and nothing left running. Below stand the threads that are left a second
later: a blocking call that polls is ended, one that waits outside of Python cannot be.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from functools import partial

from report import Row, arguments, repeat, show
from tool_episodes import TURNS, Tools, play_all

from agentrl import tool
from agentrl.env.calling import hung_calls
from agentrl.rollout.garbage import quiet_garbage

TOOL_S, DEADLINE_S = 0.05, 0.5
EPISODES = 64
RELEASE = threading.Event()


class Hanging(Tools):
    """Which of an episode's calls hang is the episode's own: drawn from its seed."""

    async def setup(self, task: object) -> None:
        self.hangs = iter(_hangs(self.rng))


class Waits(Hanging):
    @tool(deadline_s=DEADLINE_S)
    async def work(self) -> str:
        """Work."""
        await asyncio.sleep(3600 if next(self.hangs) else TOOL_S)
        return "done"


class Polls(Hanging):
    @tool(deadline_s=DEADLINE_S)
    def work(self) -> str:
        """Work."""
        hangs = next(self.hangs)
        while hangs:
            time.sleep(0.01)
        time.sleep(TOOL_S)
        return "done"


class Blocks(Hanging):
    @tool(deadline_s=DEADLINE_S)
    def work(self) -> str:
        """Work."""
        if next(self.hangs):
            RELEASE.wait()
        time.sleep(TOOL_S)
        return "done"


def _hangs(rng: random.Random) -> list[bool]:
    return [rng.random() < 0.05 for _ in range(TURNS)]


def main() -> None:
    options = arguments(__doc__ or "")
    drawn = [_hangs(random.Random(seed)) for seed in range(EPISODES)]
    ideal_s = max(sum(DEADLINE_S if hangs else TOOL_S for hangs in calls) for calls in drawn)
    rows = []
    for name, env in (("async", Waits), ("blocking, polls", Polls), ("blocking, outside of Python", Blocks)):
        median, p95 = repeat(partial(_play, env, drawn), 3 if options.quick else 5)
        rows.append(Row(name, "s", median, p95, peer_name="none", floor=ideal_s))
        time.sleep(1)
        hung = float(hung_calls())
        rows.append(Row(f"{name}: left", "threads", hung, hung, peer_name="none", floor=0.0))
        RELEASE.set()
        time.sleep(0.1)
        RELEASE.clear()
    show(f"B3 hanging tools: {sum(map(sum, drawn))} of {EPISODES * TURNS} calls hang", rows, options.json)


def _play(env: type[Hanging], drawn: list[list[bool]]) -> float:
    seconds, trajectories = play_all(env, EPISODES)
    errors = [[use.error for turn in t.turns for use in turn.tools] for t in trajectories]
    assert errors == [["timeout" if hangs else None for hangs in calls] for calls in drawn]
    return seconds


if __name__ == "__main__":
    with quiet_garbage():  # as in training
        main()
