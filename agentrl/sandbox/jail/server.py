"""The fork server: takes orders from the pool, forks a process for each, and says how it ended.

In: orders with descriptors over a socket. Out: on each run's own channel, the facts of its end. It forms no verdict,
and sees neither code nor output: those pass it by in descriptors.
"""

from __future__ import annotations

import math
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .crowd import Snapshot
from .ends import watch
from .order import BROKEN, DESCRIPTORS, INTERRUPT, KILL, MARK, Ending, Order
from .walls import Birth, Greeting, Walls

LOOK_EVERY = 0.03  # seconds between looks at what long runs use
_REST = 9  # times what a look took, so that looking never takes more than a tenth of a processor
_DESCRIPTORS = 6


@dataclass
class Run:
    order: Order
    pid: int
    watch: int  # a descriptor that can be read when it has ended
    channel: socket.socket
    began: float
    killed: str = ""
    peak: int = 0  # bytes
    cpu_s: float = 0.0  # as far as it was watched
    marked_s: float = 0.0  # of it, what was used before the cell that is under way
    marked: bool = False  # a cell has begun since the last look
    allowed_s: float = 0.0  # that the cell may use; 0: what the order says
    crowd: Snapshot | None = None  # of the time when a quarter of its own had passed
    waited_s: float = 0.0
    ended: bool = False
    greeting: Greeting | None = None  # while it is still to come


class Server:
    def __init__(self, control: socket.socket, walls: Walls, alive: int | None) -> None:
        """`alive`: a descriptor that reads end-of-file when this worker should end, besides `control`."""
        self._control = control
        control.setblocking(False)  # more than one event may lead to the same order
        self._walls = walls
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        if alive is not None:
            self._poll.register(alive, select.EPOLLIN)
        self._alive = alive
        self._runs: dict[int, Run] = {}  # by pid
        self._by_fd: dict[int, Run] = {}  # by pidfd and by channel
        self._others: dict[int, Callable[[], None]] = {}  # what else is listened to
        self._look_at = 0.0

    def serve(self) -> None:
        """Until the pool is gone. The caller then ends this process, which ends all runs."""
        while True:
            # Whose events they are is looked up before any is handled: a run that ends frees numbers for the next one.
            events = [(fd, self._by_fd.get(fd)) for fd, _ in self._poll.poll(self._patience())]
            for fd, run in events:
                if fd == self._alive or (fd == self._control.fileno() and not self._take_order()):
                    self._end_all()
                    return
                if run is None and fd in self._others:
                    self._others[fd]()
                if run is None or self._by_fd.get(fd) is not run:
                    continue
                if fd == run.watch:
                    self._ended(run)
                elif run.greeting is not None and fd == run.greeting.fileno():
                    self._greeted(run, run.greeting)
                else:
                    self._hear(run)
            self._enforce()

    def _patience(self) -> float:
        """Seconds until something may have to be done without being asked."""
        if not self._runs:
            return -1
        now = time.monotonic()
        ends = [run.began + run.order.wall_s for run in self._runs.values() if run.order.wall_s]
        return max(0.0, min(LOOK_EVERY, *(end - now for end in ends)) if ends else LOOK_EVERY)

    def _take_order(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, _DESCRIPTORS)
        except BlockingIOError:
            return True
        if not data:
            return False
        order = Order.decode(data)
        if len(descriptors) >= len(DESCRIPTORS) + (order.mode != "program"):  # which may have one more, the others must
            self._begin(order, descriptors)
        else:  # there was no room for them; the pool sees the channel close
            for fd in descriptors:
                os.close(fd)
        return True

    def _begin(self, order: Order, descriptors: list[int]) -> None:
        try:
            birth = self._walls.start(order, descriptors)
        except OSError as error:
            with suppress(OSError), socket.socket(fileno=descriptors[0]) as channel:
                channel.send(BROKEN + f"fork: {error}".encode())
        else:
            self._register(order, birth, socket.socket(fileno=descriptors[0]))
        for fd in descriptors[1:]:
            os.close(fd)

    def _register(self, order: Order, birth: Birth, channel: socket.socket) -> Run:
        channel.setblocking(False)
        began = math.inf if birth.greeting else time.monotonic()
        run = Run(order, birth.pid, watch(birth.pid), channel, began, greeting=birth.greeting)
        self._runs[run.pid] = run
        for fd in (run.watch, channel.fileno(), *([birth.greeting.fileno()] if birth.greeting else ())):
            self._listen(fd, run)
        return run

    def _listen(self, fd: int, run: Run) -> None:
        self._by_fd[fd] = run
        self._poll.register(fd, select.EPOLLIN)

    def _greeted(self, run: Run, greeting: Greeting) -> None:
        """The run's own first process is there: from now on it is the one to wait for, and its time counts."""
        self._greet_no_more(run)
        try:
            pid = greeting.adopt()
        except OSError:
            return  # the one that was started ends as well, which is heard
        self._unwatch(run)
        run.pid, run.watch, run.began = pid, os.pidfd_open(pid), time.monotonic()
        self._runs[pid] = run
        self._listen(run.watch, run)

    def _greet_no_more(self, run: Run) -> None:
        if run.greeting is not None:
            self._poll.unregister(run.greeting)
            del self._by_fd[run.greeting.fileno()]
            run.greeting = None

    def _unwatch(self, run: Run) -> None:
        del self._runs[run.pid], self._by_fd[run.watch]
        self._poll.unregister(run.watch)
        os.close(run.watch)

    def _hear(self, run: Run) -> None:
        """A word from the pool, or its silence: then the run ends, or if it has ended its folder may go."""
        try:
            word = run.channel.recv(256)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        if run.ended:
            if not word:
                self._forget(run)
        elif word[:1] == INTERRUPT:
            _signal(run, signal.SIGINT)
        elif word[:1] == MARK:
            run.marked, run.allowed_s, self._look_at = True, float(word[1:]), 0.0
        else:
            self._kill(run, word[1:].decode() if word[:1] == KILL else "cancelled")
            if not word:
                self._stop_hearing(run)

    def _kill(self, run: Run, why: str) -> None:
        run.killed = run.killed or why
        if (greeting := run.greeting) is not None:
            self._greet_no_more(run)
            greeting.refuse()
            return
        _signal(run, signal.SIGKILL)

    def _enforce(self) -> None:
        now = time.monotonic()
        older: dict[int, int] = {}
        for run in self._runs.values():
            age = now - run.began
            if run.order.wall_s and age >= run.order.wall_s:
                self._late(run)
            elif age > LOOK_EVERY and run.order.mode != "keeper":  # which looks at its own
                older[run.pid] = run.watch
                if self._walls.crowd and run.crowd is None and age >= run.order.wall_s / 4 > 0:
                    run.crowd = self._walls.crowd.look()
        if older and now >= self._look_at:
            began = time.thread_time()  # that a busy machine makes looking take long is no reason to look less often
            usage = self._walls.usage(older)
            for pid in older:
                self._judge(self._runs[pid], *usage.get(pid, (0, 0.0)))
            self._look_at = time.monotonic() + max(LOOK_EVERY, _REST * (time.thread_time() - began))

    def _late(self, run: Run) -> None:
        """Its time is over. Whose fault that was is looked for once, before it is gone.

        If its program has not begun, its time has not: the pool bounds how long walls may take.
        """
        if not run.killed and self._walls.unbegun(run.pid, run.watch):
            run.began = time.monotonic()
            return
        if not run.killed and self._walls.crowd:
            run.waited_s = self._walls.crowd.waited(run.watch, run.order.wall_s, run.cpu_s, run.crowd)
        self._kill(run, "crowded" if run.waited_s else "wall")

    def _judge(self, run: Run, memory: int, cpu_s: float) -> None:
        run.peak, run.cpu_s = max(run.peak, memory), max(run.cpu_s, cpu_s)
        if memory > run.order.memory_bytes:
            self._kill(run, "memory")
        elif cpu_s - run.marked_s > (run.allowed_s or run.order.cpu_s):
            self._kill(run, "cpu")
        elif self._walls.overfull(run.order, run.pid) and not self._walls.unbegun(run.pid, run.watch):
            self._kill(run, "disk")  # files that are given and do not fit are told by who writes them
        if run.marked:
            run.marked, run.marked_s = False, run.cpu_s

    def _ended(self, run: Run) -> None:
        """Its processes are gone: the kernel ends a process namespace before its first process can be waited for."""
        status, used = self._wait_for(run)
        wall_s = max(0.0, time.monotonic() - run.began)
        run.ended = True
        self._unwatch(run)
        self._greet_no_more(run)
        with suppress(OSError):
            run.channel.send(_ending(run, status, used, wall_s).encode())
        if run.order.show_folder and run.killed != "cancelled":
            return  # the pool still reads the folder; it closes the channel when it has
        self._forget(run)

    def _wait_for(self, run: Run) -> tuple[int, resource.struct_rusage]:
        _, status, used = os.wait4(run.pid, 0)
        return status, used

    def _stop_hearing(self, run: Run) -> None:
        if self._by_fd.pop(run.channel.fileno(), None):
            self._poll.unregister(run.channel)

    def _forget(self, run: Run) -> None:
        self._stop_hearing(run)
        run.channel.close()
        self._walls.tidy(run.order)

    def _end_all(self) -> None:
        for run in list(self._runs.values()):
            self._kill(run, "cancelled")
        for run in list(self._runs.values()):
            self._ended(run)
        for run in list(self._by_fd.values()):
            self._forget(run)
        self._walls.leave()


def _signal(run: Run, number: int) -> None:
    """It has not been waited for, so its number is still its own, or if another one took it for its child, nobody's."""
    with suppress(ProcessLookupError):
        os.kill(run.pid, number)


def _ending(run: Run, status: int, used: resource.struct_rusage, wall_s: float) -> Ending:
    signalled = os.WIFSIGNALED(status)
    return Ending(
        exit_code=None if signalled else os.waitstatus_to_exitcode(status),
        signal=os.WTERMSIG(status) if signalled else None,
        killed=run.killed,
        wall_s=round(wall_s, 6),
        cpu_s=round(max(run.cpu_s, used.ru_utime + used.ru_stime), 6),
        max_rss=used.ru_maxrss * 1024,
        peak_memory=run.peak,
        waited_s=round(run.waited_s, 3),
    )
