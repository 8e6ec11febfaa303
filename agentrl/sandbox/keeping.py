"""The keeper of a session and its forks, from the pool's side: it stands in the place of a worker for them.

In: orders. Out: nothing; what becomes of them is told on their own channels. It ends with the last of them.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .jail.order import Order
from .result import SandboxError, starting

if TYPE_CHECKING:
    from .limits import Limits
    from .live import LiveRun
    from .pool import SandboxPool

_FULL = (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS)


class Keeping:
    def __init__(self, pool: SandboxPool) -> None:
        self.load = 0  # sessions that it keeps
        self._pool = pool
        self._live: LiveRun | None = None

    async def open(self, limits: Limits) -> None:
        """Raises SandboxError if there is no worker for it."""
        with starting("the session"):
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        try:
            with theirs:
                order = self._pool.order("keeper", limits)
                self._live = await self._pool.launch(order, limits, b"", spare=theirs.fileno())
        except BaseException:
            self._control.close()
            raise

    async def send(self, order: Order, descriptors: Sequence[int]) -> None:
        """Raises SandboxError if the keeper is gone."""
        while self._live is not None:
            try:
                socket.send_fds(self._control, [order.encode()], descriptors)
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise SandboxError(f"the session's keeper is gone: {self._live.trouble or error}") from error
            await asyncio.sleep(0.001)
        raise SandboxError("the session's keeper is gone")

    def leave(self) -> None:
        """One of its sessions has been released; with the last one all that may be left ends."""
        if self.load == 0 and self._live is not None:
            self._pool.release(self._live)
            self._live = None
            self._control.close()
