"""The keeper of one session and its forks: a small fork server, as first process of their process namespace.

In: orders from the pool on a socket of its own, for a session (`cells`) and for branches of one (`branch`). Out: as
from the fork server, on each one's channel, the facts of its end. It trusts nothing that its members do, and they
cannot touch it.

A branch is made by the session, which forks itself and asks for namespaces: a call that the filter holds until the
keeper lets it through, once for each order. Before that the keeper puts the branch's own descriptors into it, and
afterwards, when the branch says by a second such call that it has given up its rights, makes its folders.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from . import branch, notices
from .family import Family
from .namespaces import Namespaces
from .order import BROKEN, READY, Order
from .server import LOOK_EVERY, Run, Server
from .walls import Birth

_BRANCH_S = 15.0  # from the order to the branch
_PLACES = ((0, 1), (1, 2), (2, 3), (3, 5))  # numbers in the branch, and which of an order's descriptors stand there
_REST_S = 0.5  # between looks at those that do nothing


def keep(descriptors: list[int], walls: Namespaces) -> NoReturn:
    """In a new process of the fork server, with walls that it does not put up around itself. Never returns."""
    channel = socket.socket(fileno=descriptors[0])
    channel.setblocking(True)
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process of a namespace hears only what it asks for
        null = os.open("/dev/null", os.O_RDWR)
        for target in range(3):
            os.dup2(null, target)
        _close_all_but(descriptors[0], descriptors[5], walls.proc)
        family = Family(walls)
        family.prepare()
        keeper = Keeper(socket.socket(fileno=descriptors[5]), family)
        channel.send(READY)
    except BaseException as error:
        channel.send(BROKEN + f"{type(error).__name__}: {error}".encode()[:2000])
        os._exit(1)
    channel.close()
    with suppress(BaseException):
        keeper.serve()
    os._exit(0)  # and with it all that is left of the family


def _close_all_but(*kept: int) -> None:
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)


@dataclass
class Branching:
    """A branch that was ordered and does not stand yet."""

    order: Order
    descriptors: list[int]
    channel: socket.socket
    source: str  # the tag of the session that it is forked from
    until: float
    pid: int = 0
    owner: int = -1  # the user namespace that it leaves
    watch: int = -1


class Keeper(Server):
    def __init__(self, control: socket.socket, family: Family) -> None:
        super().__init__(control, family, None)
        self._family = family
        self._listener = -1
        self._tags: dict[int, str] = {}  # of members, by pid
        self._branchings: list[Branching] = []
        self._cpu_s = 0.0
        self._quiet_s = 0.0

    def _begin(self, order: Order, descriptors: list[int]) -> None:
        if order.mode == "branch":
            self._order_branch(order, descriptors)
            return
        super()._begin(order, descriptors)
        if self._family.report is not None:
            self._take_listener(self._family.report)

    def _take_listener(self, report: socket.socket) -> None:
        """When the session's walls stand; nothing if they do not."""
        with report:
            _, found, _, _ = socket.recv_fds(report, 1, 1)
        if found:
            self._listener = found[0]
            self._others[self._listener] = self._asked
            self._poll.register(self._listener, select.EPOLLIN)
        for pid in self._runs:
            self._tags[pid] = self._family.hold(pid)

    def _order_branch(self, order: Order, descriptors: list[int]) -> None:
        channel = socket.socket(fileno=descriptors[0])
        source = next((run.pid for run in self._runs.values() if run.order.name == order.source), None)
        made = Branching(order, descriptors, channel, "", time.monotonic() + _BRANCH_S)
        if source is None or self._listener < 0:
            self._give_up(made, "the session has ended" if source is None else "the kernel does not let it be forked")
            return
        made.source = self._tags[source]
        for other in [each for each in self._branchings if each.source == made.source]:
            self._give_up(other, "another fork was asked for")
        self._branchings.append(made)

    def _asked(self) -> None:
        """A process of the family asks for namespaces."""
        if select.select([self._control], [], [], 0)[0]:
            self._take_order()  # which was sent before the session was asked to fork
        asked, over = notices.state(self._listener)
        if over:
            self._stop_listening()
        notice = notices.receive(self._listener) if asked else None
        if notice is None:
            return
        for made in self._branchings:
            if made.pid == notice.pid and notice.arguments[0] == branch.READY:
                try:
                    self._finish(made, notice)
                except OSError as error:  # it has ended in between
                    notices.refuse(self._listener, notice)
                    self._give_up(made, str(error))
                return
        tag = self._family.tag_of(notice.pid)
        for made in self._branchings:
            if not made.pid and made.source == tag and notice.pid not in self._runs:
                self._let_go(made, notice)
                return
        notices.refuse(self._listener, notice)

    def _stop_listening(self) -> None:
        """Nobody is left who could ask: the listener would be heard of for ever."""
        del self._others[self._listener]
        self._poll.unregister(self._listener)
        os.close(self._listener)
        self._listener = -1

    def _let_go(self, made: Branching, notice: notices.Notice) -> None:
        """The fork may have its namespaces; it has nobody else's descriptors any more."""
        try:
            if notice.arguments[0] != branch.APART:
                raise OSError("it asks for other namespaces than a branch has")
            made.owner = os.open(f"/proc/{notice.pid}/ns/user", os.O_RDONLY)
            made.watch = os.pidfd_open(notice.pid)
            for number, index in _PLACES:
                notices.hand(self._listener, notice, made.descriptors[index], number)
        except OSError as error:
            notices.refuse(self._listener, notice)
            self._give_up(made, str(error))
            return
        made.pid = notice.pid
        self._others[made.watch] = lambda: self._give_up(made, "it ended early: forks of forks can be 29 deep")
        self._poll.register(made.watch, select.EPOLLIN)
        notices.proceed(self._listener, notice)

    def _finish(self, made: Branching, notice: notices.Notice) -> None:
        why = self._family.unfit(made.pid, made.source) or self._family.furnish(made.order, made.pid, made.owner)
        if why:
            notices.refuse(self._listener, notice)
            self._give_up(made, why)
            return
        self._branchings.remove(made)
        self._close(made)
        self._tags[made.pid] = self._family.hold(made.pid)
        self._register(made.order, Birth(made.pid), made.channel).marked_s = self._family.orphans_s
        notices.succeed(self._listener, notice)
        with suppress(OSError):
            made.channel.setblocking(True)
            made.channel.send(READY)
            made.channel.setblocking(False)

    def _give_up(self, made: Branching, why: str) -> None:
        if made.pid and (tag := self._family.tag_of(made.pid)) and tag != made.source:
            self._family.end(tag)
        if made in self._branchings:
            self._branchings.remove(made)
        self._close(made)
        with suppress(OSError):
            made.channel.send(BROKEN + why.encode())
        made.channel.close()

    def _close(self, made: Branching) -> None:
        """All but the channel."""
        if made.watch in self._others:
            del self._others[made.watch]
            self._poll.unregister(made.watch)
        if made.watch >= 0:
            os.close(made.watch)
        if made.owner >= 0:
            os.close(made.owner)
        for fd in made.descriptors[1:]:
            os.close(fd)
        made.watch = made.owner = -1
        made.descriptors = made.descriptors[:1]

    def _enforce(self) -> None:
        for made in [each for each in self._branchings if time.monotonic() > each.until]:
            self._give_up(made, "it was not forked in time")
        self._family.reap({*self._runs, *(made.pid for made in self._branchings)})
        busy, last = any(run.marked for run in self._runs.values()), self._look_at
        self._family.awaited = bool(self._branchings)
        super()._enforce()
        if self._look_at != last:  # it has looked
            cpu_s = sum(run.cpu_s for run in self._runs.values())
            self._quiet_s = 0.0 if busy or cpu_s != self._cpu_s else min(_REST_S, 2 * self._quiet_s + LOOK_EVERY)
            self._cpu_s = cpu_s
            self._look_at += self._quiet_s

    def _patience(self) -> float:
        """A family that does nothing is looked at less often; it begins again with a mark."""
        if self._branchings or not self._runs:
            return super()._patience()
        return max(LOOK_EVERY, self._look_at - time.monotonic())

    def _wait_for(self, run: Run) -> tuple[int, resource.struct_rusage]:
        """Its other processes end with it. If another took the first one for its child, only that one knows its end."""
        tag = self._tags.pop(run.pid, "")
        for made in [each for each in self._branchings if each.source == tag]:
            self._give_up(made, "the session has ended")
        if not self._family.end(tag, spare=run.pid):
            os._exit(1)  # somebody breeds faster than they can be killed: then all end
        self._family.let_go(tag)
        try:
            _, status, used = os.wait4(run.pid, 0)
            return status, used
        except ChildProcessError:
            return signal.SIGKILL, resource.getrusage(resource.RUSAGE_SELF)
