"""System calls that a filter asks about: who makes one waits until it is answered here.

In: the listener that `syscalls.Filter.install_with_listener` gave. Out: notices, and answers to them. It knows no
policy.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
from contextlib import suppress
from dataclasses import dataclass

_RECEIVE, _SEND, _HAND = 0xC0502100, 0xC0182101, 0x40182103
_NOTICE = "=QIIiIQ6Q"  # id, pid, flags; number, architecture, place in the code, arguments
_CONTINUE, _AT_NUMBER = 1, 1
_EPERM = 1


@dataclass(frozen=True)
class Notice:
    """`pid` as the reader's process namespace counts it; 0 if it is not in there."""

    id: int
    pid: int
    arguments: tuple[int, ...]


def state(listener: int) -> tuple[bool, bool]:
    """(whether somebody asks, so that `receive` does not wait; whether nobody can any more: all have ended)."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    events = dict(poll.poll(0)).get(listener, 0)
    asked = bool(events & select.POLLIN)
    return asked, bool(events & select.POLLHUP) and not asked


def receive(listener: int) -> Notice | None:
    """None if the caller has given up, or was killed."""
    data = bytearray(struct.calcsize(_NOTICE))
    try:
        fcntl.ioctl(listener, _RECEIVE, data)
    except OSError:
        return None
    words = struct.unpack(_NOTICE, data)
    return Notice(words[0], words[1], words[6:])


def proceed(listener: int, notice: Notice) -> None:
    """The kernel does what was asked. The arguments that were seen are those that count: registers, not memory."""
    _answer(listener, notice, 0, _CONTINUE)


def succeed(listener: int, notice: Notice) -> None:
    """The call returns 0, and nothing was done."""
    _answer(listener, notice, 0, 0)


def refuse(listener: int, notice: Notice) -> None:
    """The call fails: it is not permitted."""
    _answer(listener, notice, -_EPERM, 0)


def _answer(listener: int, notice: Notice, error: int, flags: int) -> None:
    with suppress(OSError):  # it is gone
        fcntl.ioctl(listener, _SEND, struct.pack("=QqiI", notice.id, 0, error, flags))


def hand(listener: int, notice: Notice, fd: int, number: int) -> None:
    """Puts a descriptor of ours in the place `number` of the process that waits. Raises OSError."""
    close_on_exec = os.O_CLOEXEC if number > 2 else 0
    fcntl.ioctl(listener, _HAND, struct.pack("=QIIII", notice.id, _AT_NUMBER, fd, number, close_on_exec))
