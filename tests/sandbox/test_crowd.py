"""Whether a run met its wall limit because others had the processors: on a /proc made of files, and for real."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrl.sandbox import Limits, SandboxPool, TierUnavailable
from agentrl.sandbox.jail import crowd
from agentrl.sandbox.jail.crowd import Crowd
from agentrl.sandbox.jail.order import Ending
from agentrl.sandbox.verdict import judge

TRAINER, WORKER, SERVER, OTHER_WORKER, RUN, OTHER_RUN, OUTSIDE, WATCH = 10, 20, 21, 30, 40, 50, 60, 7
TICKS = os.sysconf("SC_CLK_TCK")
MACHINE = os.cpu_count() or 1
START = f"python -c {crowd.MARK.decode()}"


class Machine:
    """A /proc with a trainer, two workers with a run each, and a process outside; its clock is set by hand."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now = folder, 1000.0
        (folder / "self/fdinfo").mkdir(parents=True)
        (folder / f"self/fdinfo/{WATCH}").write_text(f"pos: 0\nPid:\t{RUN}\n")
        monkeypatch.setattr(crowd.os, "readlink", lambda name, dir_fd: str(SERVER))
        monkeypatch.setattr(crowd.time, "monotonic", lambda: self.now)
        for pid, parent, command in (
            (TRAINER, 1, "python train.py"),
            (WORKER, TRAINER, START),
            (SERVER, WORKER, START),
            (OTHER_WORKER, TRAINER, START),
            (RUN, SERVER, START),
            (OTHER_RUN, OTHER_WORKER, START),
            (OUTSIDE, TRAINER, "vllm serve"),
        ):
            self.process(pid, parent, command)
        self.crowd = Crowd(os.open(folder, os.O_RDONLY))

    def process(self, pid: int, parent: int = SERVER, command: str = START) -> None:
        (self.folder / f"{pid}/task").mkdir(parents=True)
        (self.folder / f"{pid}/cmdline").write_text(command)
        self.parent = {**getattr(self, "parent", {}), pid: parent}
        self.used(pid, 0)

    def used(self, pid: int, seconds: float) -> None:
        fields = ["S", self.parent[pid], *[0] * 9, int(seconds * TICKS), 0, 0, 0, 0]
        (self.folder / f"{pid}/stat").write_text(f"{pid} (a ) b) {' '.join(map(str, fields))}\n")

    def thread(self, pid: int, number: int, ran: float, waited: float) -> None:
        (self.folder / f"{pid}/task/{number}").mkdir(exist_ok=True)
        (self.folder / f"{pid}/task/{number}/schedstat").write_text(f"{int(ran * 1e9)} {int(waited * 1e9)} 5\n")

    def waited(self, others: float, who: int = OUTSIDE) -> float:
        """After 10 s with a limit of 10 s, of which `others` was the share of the machine that one process had."""
        since = self.crowd.look()
        self.now += 10
        self.used(who, others * MACHINE * 10)
        return self.crowd.waited(WATCH, 10.0, 0.0, since)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_who_waits_while_others_have_the_machine_is_crowded_out(machine: Machine) -> None:
    machine.thread(RUN, RUN, ran=2, waited=8)
    assert machine.waited(others=0.9) == pytest.approx(8)


def test_who_sleeps_is_not(machine: Machine) -> None:
    machine.thread(RUN, RUN, ran=0.1, waited=0.2)
    assert machine.waited(others=1.0) == 0


def test_who_waits_while_the_machine_is_the_runs_is_not(machine: Machine) -> None:
    machine.thread(RUN, RUN, ran=2, waited=8)
    assert machine.waited(others=1.0, who=OTHER_RUN) == 0


def test_who_waits_while_others_have_half_of_the_machine_is_not(machine: Machine) -> None:
    """As when the trainer is busy and a run hides from its count what its short-lived children used."""
    machine.thread(RUN, RUN, ran=0.5, waited=9)
    assert machine.waited(others=0.5) == 0


@pytest.mark.parametrize("processes", [1, 4])
def test_threads_that_wait_for_each_other_are_not(machine: Machine, processes: int) -> None:
    """Forty of them on one processor, which they have all the time."""
    for n in range(40):
        pid = RUN if n % processes == 0 else 100 + n % processes
        if pid != RUN and not (machine.folder / str(pid)).exists():
            machine.process(pid, parent=RUN)
        machine.thread(pid, 100 + n, ran=10 / 40, waited=10 * 39 / 40)
    assert machine.waited(others=0.9) == 0


def test_what_ended_threads_used_counts_too(machine: Machine) -> None:
    machine.thread(RUN, RUN, ran=1, waited=9)
    since = machine.crowd.look()
    machine.now += 10
    machine.used(OUTSIDE, 10 * MACHINE)
    assert machine.crowd.waited(WATCH, 10.0, 6.0, since) == 0


def test_a_short_limit_excuses_nothing(machine: Machine) -> None:
    machine.thread(RUN, RUN, ran=0.1, waited=4.9)
    since = machine.crowd.look()
    machine.now += 5
    machine.used(OUTSIDE, 5 * MACHINE)
    assert machine.crowd.waited(WATCH, 5.0, 0.0, since) == 0
    assert machine.crowd.waited(WATCH, 5.0, 0.0, None) == 0


def test_many_that_meet_their_limits_at_once_cost_one_look(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the worker would be busy with them for so long that the pool takes it for dead."""
    machine.thread(RUN, RUN, ran=2, waited=0)
    since = machine.crowd.look()
    machine.now += 10
    looks = []
    own_times = crowd.ProcessTable.own_times
    monkeypatch.setattr(crowd.ProcessTable, "own_times", lambda table: looks.append(1) or own_times(table))
    assert [machine.crowd.waited(WATCH, 10.0, 0.0, since) for _ in range(100)] == [0] * 100
    assert len(looks) == 1


def test_without_anything_to_be_seen_nobody_is_crowded_out(tmp_path: Path) -> None:
    empty = Crowd(os.open(tmp_path, os.O_RDONLY))
    assert empty.waited(WATCH, 10.0, 0.0, empty.look()) == 0


def test_the_verdict_says_so_and_is_none() -> None:
    ending = Ending(None, 9, "crowded", 10.02, 1.0, 0, 0, waited_s=8.04)
    why = "the machine was too busy: it waited 8.0 of 10.0 s for a processor"
    assert judge(ending, Limits(), overflowed=False) == ("infra_error", why)


@pytest.fixture
def busy() -> Iterator[None]:
    spinners = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(12 * MACHINE)]
    yield
    for spinner in spinners:
        spinner.kill()
        spinner.wait()


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["zygote", "landlock"])
async def test_on_a_machine_that_others_have(tier: str, busy: None) -> None:
    try:
        async with SandboxPool(tier=tier, workers=1, limits=Limits(wall_s=8)) as pool:
            spins, sleeps = await pool.run("while True: pass"), await pool.run("import time\ntime.sleep(99)")
    except TierUnavailable as error:
        pytest.skip(str(error))
    assert (spins.status, sleeps.status) == ("infra_error", "timeout")
    assert spins.error.startswith("the machine was too busy: it waited ")
