"""The first process within walls that `bubblewrap` has built: greets the worker outside, then lives the run.

In: descriptors at the numbers named here, and the order as an answer to the greeting. It is started anew for each run,
so it loads what `preload` names each time.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import syscalls as sc
from .child import become
from .order import BROKEN, Order
from .walls import set_limits

RUN_ID = 1000  # user and group of a run, as it sees itself
GREETING, CHANNEL, PAYLOAD, FILTER, SPARE = range(3, 8)  # after the three standard streams
FOLDERS = ("/work", "/tmp", "/dev/shm")  # that a run may write to


def start_text(code: str, path: Sequence[str], preload: Sequence[str], warm: str) -> str:
    """The program of the interpreter, to which any argument says that there is a descriptor `SPARE`. `code`: the folder
    of this package there; `path`: of its modules.
    """
    return f"""
import sys
sys.path[:] = {[code, *path]!r}
from sandbox_jail.inside import main
del sys.path[0]
main({list(preload)!r}, {warm!r})
"""


def main(preload: Sequence[str], warm: str) -> NoReturn:
    try:
        _helpers()
        for name in preload:
            importlib.import_module(name)
        if warm:
            exec(compile(warm, "<warm>", "exec"), {"__name__": "warm"})
    except BaseException as error:
        os.write(CHANNEL, BROKEN + f"{type(error).__name__}: {error}".encode(errors="replace")[:2000])
        os._exit(1)
    spare = SPARE if len(sys.argv) > 1 else None
    become(_greet(), [CHANNEL, 0, 1, 2, PAYLOAD], _Built(), lambda _: spare)


def _greet() -> Order:
    """Shows the worker the run's folders. Who has made this process ends then, and the worker is its parent."""
    greeting = socket.socket(fileno=GREETING)
    sc.die_with_parent(0)
    folders = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in FOLDERS]
    socket.send_fds(greeting, [b"+"], folders)
    answer = greeting.recv(1 << 16)
    sc.die_with_parent(signal.SIGKILL)
    try:
        alive = bool(answer) and bool(greeting.recv(1, socket.MSG_DONTWAIT))
    except BlockingIOError:
        alive = True  # nothing more is said, and nobody has hung up: the worker lives
    if not alive:
        os._exit(1)
    greeting.detach()
    return Order.decode(answer)


def _helpers() -> None:
    """What `site` would put among the builtins."""
    import site

    site.setquit()
    site.setcopyright()
    site.sethelper()


class _Built:
    """All walls stand already; what is left is the limits of a process."""

    def fork(self) -> int:
        return os.fork()

    def enclose(self, order: Order) -> str:
        set_limits(order)
        return "/work"

    def shut(self) -> None:
        """The filter is installed; the worker is told that what comes now is the program's."""
        os.write(GREETING, b"!")
