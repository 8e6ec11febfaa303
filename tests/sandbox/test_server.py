"""The fork server by itself, with events in the order that is hard to bring about: its runs are plain processes."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from agentrl.sandbox.jail.order import DESCRIPTORS, DONE, KILL, Ending, Order
from agentrl.sandbox.jail.server import Server
from agentrl.sandbox.jail.walls import Birth

ORDER = Order(
    mode="program", wall_s=60, cpu_s=60, address_bytes=1 << 40, memory_bytes=1 << 40, processes=9, disk_bytes=1 << 40,
    files=9, open_files=9, show_folder=False, name="run-1",
)  # fmt: skip

ENDED = 8  # runs; a new one gets five descriptors, so not all of their channels' numbers

Batch = Callable[[], list[tuple[int, int]]]


@dataclass
class Walls:
    """Its runs are processes that were there before, in this order."""

    processes: list[subprocess.Popen[bytes]]
    features: dict[str, object] = field(default_factory=dict)
    crowd: object = None
    slow: list[bool] = field(default_factory=list)  # whether a program has not begun, each time it is asked
    full: bool = False  # whether a run has more on disk than it may
    left: bool = False
    next_number: set[int] = field(default_factory=set)  # what the next descriptor is to be one of, if any
    tidied: list[str] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    def start(self, order: Order, descriptors: list[int]) -> Birth:
        while self.next_number and (fd := os.open(os.devnull, os.O_RDONLY)) not in self.next_number:
            self.held.append(fd)
        if self.next_number:
            os.close(fd)
        return Birth(self.processes.pop(0).pid)

    def usage(self, runs: dict[int, int]) -> dict[int, tuple[int, float]]:
        return {}

    def overfull(self, order: Order, pid: int) -> bool:
        return self.full

    def unbegun(self, pid: int, watch: int) -> bool:
        return self.slow.pop(0) if self.slow else False

    def tidy(self, order: Order) -> None:
        self.tidied.append(order.name)

    def leave(self) -> None:
        self.left = True


class Script:
    """In the place of epoll: what each call of `poll` returns is worked out when it is called."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def poll(self, patience: float) -> list[tuple[int, int]]:
        return self.batches.pop(0)()

    def register(self, fd: object, events: int) -> None:
        pass

    def unregister(self, fd: object) -> None:
        pass


class Scene:
    """A server, the pool's end of its control socket, and processes that sleep until they are killed."""

    def __init__(self, count: int) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sleepers = [subprocess.Popen(["sleep", "300"]) for _ in range(count)]
        self.walls = Walls(list(self.sleepers))
        self.server = Server(theirs, self.walls, None)
        self.theirs = theirs
        self.channels: list[socket.socket] = []

    def order(self, **changed: object) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channels.append(ours)
        null = os.open(os.devnull, os.O_RDONLY)
        given = [theirs.fileno(), *[null] * (len(DESCRIPTORS) - 1)]
        socket.send_fds(self.control, [replace(ORDER, **changed).encode()], given)
        theirs.close()
        os.close(null)

    def ordered(self) -> list[tuple[int, int]]:
        return [(self.theirs.fileno(), 1)]

    def kill(self, number: int) -> None:
        self.sleepers[number].kill()
        os.waitid(os.P_PID, self.sleepers[number].pid, os.WEXITED | os.WNOWAIT)

    def endings(self) -> list[Ending | None]:
        """What each run was said to have come to; None if nothing was said."""
        found = []
        for channel in self.channels:
            channel.setblocking(False)
            try:
                word = channel.recv(1 << 16)
            except ConnectionResetError:  # a word of ours was not read; what was said before can still be heard
                word = channel.recv(1 << 16)
            except BlockingIOError:
                word = b""
            found.append(Ending.decode(word) if word[:1] == DONE else None)
        return found

    def close(self) -> None:
        for each in (self.control, self.theirs, *self.channels):
            each.close()
        for fd in self.walls.held:
            os.close(fd)
        for sleeper in self.sleepers:
            sleeper.kill()
            sleeper.wait()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene(ENDED + 1)
    yield made
    made.close()


def test_events_of_runs_that_have_ended_are_not_those_of_the_run_that_got_their_numbers(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs end and a new one comes, in one batch: it gets the numbers whose events follow."""

    def wait4(pid: int, options: int) -> tuple[int, int, object]:
        found = kernels(pid, os.WNOHANG)
        assert found[0] == pid, "the server waits for a run that goes on: no other run could end meanwhile"
        return found

    kernels = os.wait4
    monkeypatch.setattr(os, "wait4", wait4)
    stale: list[int] = []

    def all_at_once() -> list[tuple[int, int]]:
        runs = list(scene.server._runs.values())
        stale.extend(each.channel.fileno() for each in runs)
        for number in range(ENDED):
            scene.kill(number)
        scene.order(name="new")
        scene.walls.next_number = set(stale)
        return [*((each.watch, 1) for each in runs), (scene.theirs.fileno(), 1), *((fd, 1) for fd in stale)]

    def look() -> list[tuple[int, int]]:
        (new,) = scene.server._runs.values()
        assert new.order.name == "new"
        assert new.watch in stale
        assert (new.ended, new.killed) == (False, "")
        return gone()

    def gone() -> list[tuple[int, int]]:
        scene.control.close()
        return [(scene.theirs.fileno(), 1)]

    for _ in range(ENDED):
        scene.order()
    scene.server._poll = Script([scene.ordered] * ENDED + [all_at_once, look])  # type: ignore[assignment]
    monkeypatch.setattr(scene.server, "_end_all", lambda: setattr(scene.walls, "left", True))
    scene.server.serve()
    assert scene.walls.left
    assert [ending is not None and ending.signal for ending in scene.endings()] == [9] * ENDED + [False]


def test_a_word_for_a_run_that_ended_in_the_same_batch_is_not_heard_by_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crossing() -> list[tuple[int, int]]:
        runs = list(scene.server._runs.values())
        for number, channel in enumerate(scene.channels):
            channel.send(KILL + b"output")
            scene.kill(number)
        events = [*((each.watch, 1) for each in runs), (scene.theirs.fileno(), 1)]
        scene.order(name="new")
        return [*events, *((each.channel.fileno(), 1) for each in runs)]

    def look() -> list[tuple[int, int]]:
        (new,) = scene.server._runs.values()
        assert (new.order.name, new.killed) == ("new", "")
        assert scene.walls.tidied == ["run-1"] * ENDED  # once each
        scene.control.close()
        return [(scene.theirs.fileno(), 1)]

    for _ in range(ENDED):
        scene.order()
    scene.server._poll = Script([scene.ordered] * ENDED + [crossing, look])  # type: ignore[assignment]
    scene.server.serve()
    assert scene.walls.left
    assert [ending is not None and ending.killed for ending in scene.endings()] == [""] * ENDED + ["cancelled"]


class Forever(list[Batch]):
    """The last batch again and again."""

    def pop(self, place: int = 0) -> Batch:  # type: ignore[override]
        return super().pop(place) if len(self) > 1 else self[0]


def test_the_time_of_a_program_that_has_not_begun_does_not_run(scene: Scene) -> None:
    """Its walls took longer than it may: it is asked twice, and has its whole time after that."""
    scene.walls.slow = [True, True]
    ends: list[float] = []

    def wait() -> list[tuple[int, int]]:
        (run,) = scene.server._runs.values()
        ends.append(run.began)
        if run.killed:
            scene.control.close()
            return [(scene.theirs.fileno(), 1)]
        time.sleep(0.02)
        return []

    scene.order(wall_s=0.05)
    scene.server._poll = Script(Forever([scene.ordered, wait]))  # type: ignore[assignment]
    scene.server.serve()
    assert len(set(ends)) == 3
    assert scene.walls.slow == []
    (ending,) = scene.endings()
    assert ending is not None
    assert ending.killed == "wall"
    assert ending.wall_s >= 0.05


def test_what_is_on_disk_before_a_program_begins_is_not_its_doing(scene: Scene) -> None:
    """The files that it was given are being written: who writes them says whether they fit."""
    scene.walls.full, scene.walls.slow = True, [True, True]

    def wait() -> list[tuple[int, int]]:
        (run,) = scene.server._runs.values()
        assert scene.walls.slow == [] or not run.killed
        if run.killed:
            scene.control.close()
            return [(scene.theirs.fileno(), 1)]
        time.sleep(0.02)
        return []

    scene.order()
    scene.server._poll = Script(Forever([scene.ordered, wait]))  # type: ignore[assignment]
    scene.server.serve()
    (ending,) = scene.endings()
    assert ending is not None
    assert ending.killed == "disk"
