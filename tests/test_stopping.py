"""Ctrl-C while a command runs: once, twice at once, and again much later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrl.cli.stopping import interrupts_held

# One task, and its child, which it awaits and which ends, when it is cancelled, once there is the file `go`; "begun"
# once both run.
CODE = """
import asyncio, pathlib, sys
from agentrl.cli.stopping import run_stoppable

async def child():
    try:
        await asyncio.sleep(600)
    finally:
        while not pathlib.Path(sys.argv[1]).exists():
            await asyncio.sleep(0.02)
        print("child ended", flush=True)

async def main():
    task = asyncio.create_task(child())
    await asyncio.sleep(0)
    print("begun", flush=True)
    try:
        await asyncio.sleep(600)
    finally:
        task.cancel()
        await asyncio.wait([task])
        print("main ended", flush=True)

try:
    run_stoppable(main())
except KeyboardInterrupt:
    print("stopped", flush=True)
    sys.exit(130)
"""


def begin(go: Path) -> subprocess.Popen[str]:
    """The program, once it runs."""
    argv = [sys.executable, "-c", CODE, str(go)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


def interrupted(go: Path, pauses_s: tuple[float, ...]) -> tuple[list[str], str, int]:
    """Lines printed, errors and exit code of a program that is interrupted, and again after each pause."""
    with begin(go) as process:
        process.send_signal(signal.SIGINT)
        for pause_s in pauses_s:
            time.sleep(pause_s)
            process.send_signal(signal.SIGINT)
        go.touch()
        out, err = process.communicate(timeout=200)
    return out.splitlines(), err, process.returncode


@pytest.mark.parametrize("pauses_s", [(), (0.1,), (0.05, 0.05, 0.2)])
def test_interrupts_at_once_are_one_and_everything_ends_in_order(pauses_s: tuple[float, ...], tmp_path: Path) -> None:
    wanted = (["child ended", "main ended", "stopped"], "", 130)
    for attempt in range(5):  # held up for two seconds, we or the program take an interrupt for one that is meant
        found = interrupted(tmp_path / f"go {attempt}", pauses_s)
        if found == wanted:
            break
    assert found == wanted


def test_a_later_interrupt_ends_what_does_not_end(tmp_path: Path) -> None:
    with begin(tmp_path / "never") as process:
        process.send_signal(signal.SIGINT)
        for _ in range(20):  # one may come late to the program, and so the next one early
            time.sleep(2.5)
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=200)
    assert (out.splitlines()[-1], process.returncode) == ("stopped", 130)


def test_what_is_held_is_raised_at_the_end_and_not_in_between() -> None:
    before, reached = signal.getsignal(signal.SIGINT), []

    def held() -> None:
        with interrupts_held():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                reached.append(signal.getsignal(signal.SIGINT))

    with pytest.raises(KeyboardInterrupt):
        held()
    assert len(reached) == 2
    assert signal.getsignal(signal.SIGINT) == before not in reached
    with interrupts_held():
        pass  # nobody interrupts, and nothing is raised
