"""The workers of one pool: started together, replaced when they die, ended together.

In: where they are started and what they load. Out: the one with the least to do. It knows no runs.
"""

from __future__ import annotations

import asyncio

from .preload import Preload
from .result import SandboxError
from .starts import Place
from .surely import surely
from .worker import Worker

TRIES = 3  # of what a dying worker keeps from beginning


class Crew:
    """`open`, then `pick`; at the end `close` and `gone`."""

    def __init__(self, place: Place, preload: Preload) -> None:
        self.place = place
        self.workers: list[Worker] = []
        self.closed = False
        self._preload = preload
        self._mending = asyncio.Lock()

    async def open(self, count: int) -> None:
        """Starts so many. Raises TierUnavailable or SandboxError if one cannot be had; then `close` ends the others."""
        others: list[asyncio.Task[None]] = []
        try:
            await self._add()
            others = [asyncio.create_task(self._add()) for _ in range(count - 1)]
            await asyncio.gather(*others)
        except BaseException:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)  # one may have started all the same
            raise

    def close(self) -> None:
        """Begins to end them all, and with them their runs. Does not wait."""
        self.closed = True
        for worker in self.workers:
            worker.close()

    async def gone(self) -> None:
        """After `close`: returns when nothing of them is left, even if it is cancelled."""
        await surely(asyncio.gather(*(worker.gone() for worker in self.workers)))

    async def pick(self) -> Worker:
        """The worker with the least to do. Raises SandboxError if there is none to be had."""
        if self.closed or not self.workers:
            raise SandboxError("the pool is not open: use it inside `async with`")
        if not all(worker.alive for worker in self.workers):
            await self._mend()
        return min(self.workers, key=lambda worker: worker.load)

    async def _add(self) -> None:
        self.workers.append(await self._new_worker())

    async def _new_worker(self) -> Worker:
        worker = Worker(self.place, self._preload)
        await worker.start()
        return worker

    async def _mend(self) -> None:
        """Puts new workers in the place of dead ones."""
        async with self._mending:
            for number, worker in enumerate(self.workers):
                if not worker.alive:
                    await worker.gone()
                    new = await self._replacement()
                    if self.closed:
                        new.close()
                        await new.gone()
                        raise SandboxError("the pool was closed")
                    self.workers[number] = new

    async def _replacement(self) -> Worker:
        """Whatever ended the last one may end the next before it stands."""
        for left in reversed(range(TRIES)):
            try:
                return await self._new_worker()
            except SandboxError:
                if not left or self.closed:
                    raise
        raise AssertionError
