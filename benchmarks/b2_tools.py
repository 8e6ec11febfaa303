"""B2: tools that take 50 ms, async and blocking: 64 episodes of four calls, all at once.

Floor: an episode's four calls one after the other, 0.2 s; the goal is 0.3 s. Peer: TRL's tool loop, which runs the
tools of one episode after those of another (once; it takes a quarter of a minute).
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

from report import Row, arguments, repeat, show
from tool_episodes import TURNS, Tools, play_all

from agentrl import tool
from agentrl.rollout.garbage import quiet_garbage

TOOL_S = 0.05
EPISODES = 64
HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".venv-parity" / "bin" / "python"


class Waits(Tools):
    @tool
    async def work(self) -> str:
        """Work."""
        await asyncio.sleep(TOOL_S)
        return "done"


class Blocks(Tools):
    @tool
    def work(self) -> str:
        """Work."""
        time.sleep(TOOL_S)
        return "done"


def peer_s(kind: str) -> tuple[float | None, str]:
    """TRL's seconds, and its name; none where it is not installed."""
    if not PEERS.exists():
        return None, "not installed: make parity-setup"
    command = [str(PEERS), str(HERE / "peer_trl_tools.py"), kind]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, "TRL failed: " + done.stderr.strip().splitlines()[-1]
    return float(done.stdout.splitlines()[-1]), "TRL 1.16 tool loop"


def main() -> None:
    options = arguments(__doc__ or "")
    rows = []
    for kind, env in (("async", Waits), ("blocking", Blocks)):
        median, p95 = repeat(lambda env=env: play_all(env, EPISODES)[0], 3 if options.quick else 7)
        peer, name = peer_s(kind)
        rows.append(Row(f"{kind} tools", "s", median, p95, peer=peer, peer_name=name, floor=TURNS * TOOL_S))
    show("B2 tools of 50 ms, 64 episodes of 4 calls", rows, options.json)


if __name__ == "__main__":
    with quiet_garbage():  # as in training
        main()
