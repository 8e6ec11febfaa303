"""Ctrl-C while a command runs: once, twice at once, and again much later."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

# One task that takes `slow_s` to end when it is cancelled, and its child, which it awaits; "begun" once both run.
CODE = """
import asyncio, sys
from agentrl.cli.stopping import run_stoppable

async def child():
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep({slow_s})
        print("child ended", flush=True)

async def main():
    task = asyncio.create_task(child())
    await asyncio.sleep(0)
    print("begun", flush=True)
    try:
        await asyncio.sleep(60)
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


def interrupted(slow_s: float, *pauses_s: float) -> tuple[list[str], str, int]:
    """Lines printed, errors and exit code of a program that is interrupted, and again after each pause."""
    argv = [sys.executable, "-c", CODE.format(slow_s=slow_s)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        for pause_s in pauses_s:
            time.sleep(pause_s)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    return out.splitlines(), err, process.returncode


@pytest.mark.parametrize("pauses_s", [(), (0.1,), (0.05, 0.05, 0.2)])
def test_interrupts_at_once_are_one_and_everything_ends_in_order(pauses_s: tuple[float, ...]) -> None:
    lines, err, code = interrupted(0.6, *pauses_s)
    assert (lines, err, code) == (["child ended", "main ended", "stopped"], "", 130)


def test_a_later_interrupt_ends_what_does_not_end() -> None:
    began = time.monotonic()
    lines, _, code = interrupted(20, 2.5)
    assert time.monotonic() - began < 15
    assert (lines[-1], code) == ("stopped", 130)
