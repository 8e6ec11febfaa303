"""One run from the pool's side: its pipes, its channel, and its end. Out: the facts, from which `verdict` judges."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from .jail.order import BROKEN, DONE, FOLDER, INTERRUPT, KILL, READY, Ending, Order
from .streams import CappedPipe

_START_S = 20.0  # for the walls of one run to stand
_GRACE_S = 5.0  # after which a worker that should have ended a run is taken for dead
_TOO_MUCH_GIVEN = ("disk", "memory")  # what the caller's own files may come to before the walls stand
_SEALS = 0b1111  # no writing, growing, shrinking, and no other seals


class Taker(Protocol):
    """Who takes orders: a worker, or the keeper of a session."""

    load: int  # runs that are under way there

    async def send(self, order: Order, descriptors: Sequence[int]) -> None:
        """Raises SandboxError if it is gone."""


class LiveRun:
    """Call `start`, then await `done`. `close` ends it at any time and frees all it holds."""

    def __init__(self, worker: Taker, order: Order, output_cap: int) -> None:
        self.worker = worker
        self.order = order
        self.overflowed = False
        self.trouble = ""  # why there is no ending: the sandbox failed
        self.ending: Ending | None = None
        self.begun = False  # the program may have
        self.unbegun = False  # the worker died before: another one may have the order
        self.folder: int | None = None  # directory descriptor, if the order asked for it
        self.began = time.monotonic()
        self.ready_s = 0.0  # from then until the walls stood
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._cap = output_cap
        self._timer: asyncio.TimerHandle | None = None
        self._channel: socket.socket | None = None

    async def start(self, payload: bytes, stdin: bytes, spare: int | None = None) -> None:
        """Sends the order. Raises SandboxError if the worker is gone, OSError without descriptors left."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = [theirs.detach()]
        try:
            self._channel.setblocking(False)
            given.append(_sealed(stdin) if stdin else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            self.stdout, writer = self._pipe()
            given.append(writer)
            self.stderr, writer = self._pipe()
            given += [writer, _sealed(payload)]
            await self.worker.send(self.order, [*given, spare] if spare is not None else given)
        except BaseException:
            self.close()
            raise
        finally:
            for fd in given:
                os.close(fd)
        self._loop.add_reader(self._channel, self._hear)
        self._timer = self._loop.call_later(_START_S, self.give_up, "its walls did not stand in time")

    def _pipe(self) -> tuple[CappedPipe, int]:
        reader, writer = os.pipe()
        return CappedPipe(reader, self._cap, self._overflow, self._maybe_finish), writer

    def _overflow(self) -> None:
        self.overflowed = True
        self.tell(KILL + b"output")

    def tell(self, word: bytes) -> None:
        if self._channel is not None:
            with suppress(OSError):
                self._channel.send(word)

    def interrupt(self) -> None:
        self.tell(INTERRUPT)

    def kill(self, why: str) -> None:
        self.tell(KILL + why.encode())

    def _hear(self) -> None:
        assert self._channel is not None
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, 1 << 16, 1)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # a word of ours came too late to be read; what was said before can still be heard
            return self._hear()
        except OSError:
            data, descriptors = b"", []
        kind = data[:1]
        if kind == FOLDER:
            self.folder = descriptors[0] if descriptors else None
        elif kind == READY:
            self.begun = True
            self._set_timer()
            self.ready_s = time.monotonic() - self.began
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind == BROKEN:
            self.give_up(data[1:].decode("utf-8", "replace"))
        elif kind == DONE:
            self._end(Ending.decode(data))
        else:
            self.unbegun = not self.begun
            self.give_up("the worker process died")
        return None

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if self.order.wall_s:
            late = self.order.wall_s + _GRACE_S
            self._timer = self._loop.call_later(late, self.give_up, "the worker did not end it at its limit")

    def _end(self, ending: Ending) -> None:
        if not self.ready.done() and ending.killed not in _TOO_MUCH_GIVEN:
            return self.give_up(f"it ended before its walls stood: {ending}")
        self.ending = ending
        for pipe in (self.stdout, self.stderr):
            pipe.drain()
        self._maybe_finish()
        if not self.done.done():  # somebody else holds a pipe: no run of a namespace does
            self._loop.call_later(0.2, self._finish)
        return None

    def give_up(self, why: str) -> None:
        """Nobody will say any more how it ended: the sandbox has failed it."""
        self.trouble = self.trouble or why
        self._finish()

    def _maybe_finish(self) -> None:
        if self.ending is not None and not self.stdout.open and not self.stderr.open:
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        if not self.ready.done():
            self.ready.set_result(None)

    def close(self) -> None:
        """Ends the run if it goes on: the worker sees its channel close."""
        if self._timer:
            self._timer.cancel()
        if self._channel is not None:
            self._loop.remove_reader(self._channel)
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)  # a fork of this process may hold it open
            self._channel.close()
            self._channel = None
        for name in ("stdout", "stderr"):
            if pipe := self.__dict__.get(name):
                pipe.close()
        if self.folder is not None:
            os.close(self.folder)
            self.folder = None
        self._finish()


def _sealed(content: bytes) -> int:
    """A file in memory that nobody can change any more."""
    fd = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd
