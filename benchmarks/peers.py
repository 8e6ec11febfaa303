"""The peers of B1, each in a process of its own that plays when it is told to, so that they take turns with us.

What comes in: how many episodes to play at once. What goes out: microseconds a turn, by the clock and by the processor;
or why there are none. Their programs are the `peer_*.py` that speak by `peer_turns`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".venv-bench"
CLASSIC = VENV / "classic"  # verifiers 0.1.14 and what it alone needs: two versions of a package, one environment


class Peer:
    """A peer at work. `name` says why it has no figures when it broke."""

    def __init__(self, name: str, process: subprocess.Popen[str], complaints: Any) -> None:
        self.name, self.works = name, True
        self._process, self._complaints = process, complaints

    def measure(self, at_once: int) -> tuple[float, float] | None:
        """Wall and processor time a turn, us; none where it broke, now or before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self.works:
            return None
        try:
            print(at_once, file=self._process.stdin, flush=True)
            said = self._process.stdout.readline()
        except BrokenPipeError:
            said = ""
        if not said:
            with suppress(BrokenPipeError):  # of what it never read
                self._process.stdin.close()
            self._complaints.seek(0)
            reason = (self._complaints.read().strip().splitlines() or ["it ended"])[-1]
            self.name, self.works = f"{self.name} failed: {reason}", False
            return None
        figures = json.loads(said)
        return figures["wall"], figures["cpu"]


class Missing:
    """Stands in the table for peers that are not installed."""

    name = "not installed: make bench-setup"

    def measure(self, at_once: int) -> None:
        """No figures."""


@contextmanager
def started(name: str, script: str, path: Path | None = None) -> Iterator[Peer]:
    """A peer's program, until the block ends."""
    env = os.environ | {"PYTHONPATH": str(path)} if path else None
    command = [str(VENV / "bin" / "python"), str(HERE / script)]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=complaints, text=True, env=env) as process,
    ):
        yield Peer(name, process, complaints)


@contextmanager
def all_peers() -> Iterator[list[Peer | Missing]]:
    """Every peer of B1."""
    if not (VENV / ".setup").exists():
        yield [Missing()]
        return
    with ExitStack() as stack:
        yield [
            stack.enter_context(started("verifiers 0.4.0, harness in process", "peer_verifiers.py")),
            stack.enter_context(started("verifiers 0.1.14 ToolEnv, no tokens", "peer_verifiers_classic.py", CLASSIC)),
            stack.enter_context(started("GEM 0.1.0, lock-step, no tokens", "peer_gem.py")),
        ]
