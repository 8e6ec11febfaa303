"""B1's task in GEM's `SyncVectorEnv`, the lighter of its two; see `peer_turns`.

Within the measured time: reset and steps of environments that stand in one list, each with GEM's tool wrapper (the call
is found in the text by a regular expression) and its wrapper that joins a chat into one text.

This is an environment and no rollout: the episodes move in lock-step and the slowest holds up all, a step blocks, and
nothing is awaited, limited in time, rendered to tokens, scored beside the step or recorded. It is what a turn costs
when none of that is done. agentrl's figure has it all. `reasoning_gym`, which `import gem` lists, is stood in for by
an empty module: none of its environments is made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import sys
from functools import cache, partial
from types import ModuleType, SimpleNamespace
from typing import Any

from peer_turns import ANSWER, TURNS, episodes, serve

sys.modules["reasoning_gym"] = ModuleType("reasoning_gym")
sys.modules["reasoning_gym"].factory = SimpleNamespace(DATASETS={})  # type: ignore[attr-defined]

import gem  # noqa: E402
from gem.tools.base_tool import BaseTool  # noqa: E402
from gem.tools.tool_env_wrapper import ToolEnvWrapper  # noqa: E402
from gem.wrappers.observation_wrapper import ObservationWrapper  # noqa: E402

CALL = "<echo>hello</echo>"
CALLED = re.compile(r"<echo>(.*?)</echo>", re.DOTALL)


class EchoTool(BaseTool):
    tool_type = "echo"

    def instruction_string(self) -> str:
        return "Say it back: <echo>text</echo>"

    def execute_action(self, action: str) -> tuple[bool, bool, str, str]:
        call = CALLED.search(action)
        return (False, True, "", action) if call is None else (True, False, call[1], action[: call.end()])


class Echo(gem.Env):
    """Ends with the first action that is no call."""

    def __init__(self, seed: int) -> None:
        pass

    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        return "go", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "", 1.0, True, False, {}


WRAPPERS = [partial(ToolEnvWrapper, tools=[EchoTool()]), partial(ObservationWrapper, include_chat_template=False)]


@cache
def vector(at_once: int) -> Any:
    """Environments are made once, as agentrl's are."""
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it makes
        return gem.make_vec(["bench:Echo"] * at_once, wrappers=WRAPPERS)


async def play(at_once: int) -> None:
    envs = vector(at_once)
    for _ in range(episodes(at_once) // at_once):
        envs.reset()
        for action in [CALL] * (TURNS - 1) + [ANSWER]:
            _, rewards, ended, _, _ = envs.step([action] * at_once)
        assert ended.all(), ended
        assert (rewards == 1.0).all(), rewards


if __name__ == "__main__":
    gem.register("bench:Echo", Echo)
    asyncio.run(serve(play))
