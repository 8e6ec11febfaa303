"""A worker process seen from the pool: starts it, sends it orders, notices its death. It knows no results."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .jail.order import Order
from .preload import Preload
from .result import TierUnavailable, WorkerGone, starting
from .starts import Place, Process
from .surely import surely

_START_S = 60.0


class Worker:
    """One fork server, started in `place` with the strongest walls of those that it has."""

    def __init__(self, place: Place, preload: Preload) -> None:
        self.features: dict[str, Any] = {}
        self.load = 0  # runs that are under way here
        self.alive = False
        self._place = place
        self._process: Process | None = None  # until it is closed
        self._ended: Process | None = None
        self._config: dict[str, Any] = {"preload": list(preload.modules), "warm": preload.warm}

    async def start(self) -> None:
        """Raises TierUnavailable with the step that this machine refuses, SandboxError without descriptors left."""
        self._loop = asyncio.get_running_loop()
        refused: list[str] = []
        for walls in self._place.walls:
            try:
                self.features = await self._begin(walls)
            except TierUnavailable as error:
                refused += [str(error)] if str(error) not in refused else []
            else:
                self._place.walls = (walls,)  # all workers of a pool are alike
                self.alive = True
                self._loop.add_reader(self._control, self.close)
                return
        raise TierUnavailable(f"tier {self._place.tier!r} cannot be had here: {'; '.join(refused)}")

    async def _begin(self, walls: str) -> dict[str, Any]:
        """The features of a worker that serves from now on."""
        with starting("a worker"):
            process = self._process = await self._place.open(walls)
        self._control = process.control
        try:
            config = {**self._config, "tier": walls, "base": process.base}
            self._control.send(json.dumps(config).encode())
            answer = await asyncio.wait_for(self._loop.sock_recv(self._control, 1 << 16), _START_S)
            said: dict[str, Any] = json.loads(answer or b'{"error": "the process died while starting"}')
        except (OSError, TimeoutError) as error:
            said = {"error": f"no answer: {error or 'it took too long'}"}
        except BaseException:
            self.close()
            await self.gone()
            raise
        if "error" in said:
            self.close()
            await self.gone()
            raise TierUnavailable(said["error"])
        return {**process.features, **said["features"]}

    @property
    def pid(self) -> int:
        """Of the first process of those that were started; with namespaces, the fork server is a child of it."""
        process = self._process or self._ended
        assert process is not None, "it has not been started"
        return process.pid

    async def send(self, order: Order, descriptors: Sequence[int]) -> None:
        """Raises WorkerGone."""
        data = order.encode()
        while self.alive:
            try:
                socket.send_fds(self._control, [data], descriptors)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS):
                    self.close()
            await asyncio.sleep(0.001)  # its queue is full
        raise WorkerGone("the worker process is gone")

    def close(self) -> None:
        """Begins to end the process and with it all its runs. Does not wait; may be called more than once."""
        self.alive = False
        if self._process is None:
            return
        self._loop.remove_reader(self._control)
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # a fork of this process may hold it open
        self._control.close()
        self._process.end()
        self._process, self._ended = None, self._process

    async def gone(self) -> None:
        """After `close`: returns when nothing of it is left, some seconds later at most, even if it is cancelled."""
        if self._ended is not None:
            await surely(self._ended.gone())
