"""Bounds of a whole pool: how many runs and how many sessions at once, and what all of them may use together.

In: the limits of a run or session that wants to begin. Out: a place, which is to be left. Who does not fit waits, in
the order of coming. What a run really uses is not looked at: it may use all that its limits allow, so that counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .limits import Limits
from .result import SandboxError


class Gate:
    """`memory_bytes`, `processes`: the most that the limits of all that is inside may sum up to; None: any."""

    def __init__(self, memory_bytes: int | None = None, processes: int | None = None) -> None:
        self._most: dict[str, int | None] = {"memory_bytes": memory_bytes, "processes": processes}
        for name, most in self._most.items():
            _above_zero(name, most)
        self.used = dict.fromkeys(self._most, 0)
        self._bounds: list[Bound] = []
        self._tickets = 0

    def bound(self, what: str, most: int | None) -> Bound:
        """`most` at once of something, all of which go through this gate."""
        _above_zero(what, most)
        self._bounds.append(Bound(self, what, most))
        return self._bounds[-1]

    @property
    def most(self) -> dict[str, int]:
        """What is bounded, and how."""
        return {name: most for name, most in self._most.items() if most is not None}

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def check(self, limits: Limits) -> None:
        """Raises ValueError for what would not fit into an empty pool."""
        for name, most in self._most.items():
            if most is not None and getattr(limits, name) > most:
                raise ValueError(f"Limits.{name} is {getattr(limits, name)}, and the whole pool has {most}")

    def fits(self, limits: Limits) -> bool:
        return all(most is None or self.used[name] + getattr(limits, name) <= most for name, most in self._most.items())

    def take(self, limits: Limits, sign: int) -> None:
        for name in self.used:
            self.used[name] += sign * getattr(limits, name)

    def open_wide(self) -> None:
        """Nobody waits any more: the pool ends, and tells each so."""
        self._most = dict.fromkeys(self._most)
        for bound in self._bounds:
            bound.most = None
        self.let_in()

    def let_in(self) -> None:
        """Those who have waited longest. Who waits for memory or processes is not overtaken, or would wait for ever."""
        while heads := [head for bound in self._bounds if bound.free and (head := bound.head()) is not None]:
            place = min(heads, key=lambda each: each.ticket)
            if not self.fits(place.limits):
                return
            place.bound.waiting.popleft()
            place.enter()


class Place:
    """One run's or session's. Leave it once; leaving again does nothing."""

    def __init__(self, bound: Bound, limits: Limits) -> None:
        self.bound, self.limits = bound, limits
        self.ticket = bound.gate.ticket()
        self.come: asyncio.Future[None] | None = None  # for one who waits
        self._inside = False

    def enter(self) -> None:
        self._inside = True
        self.bound.inside += 1
        self.bound.gate.take(self.limits, 1)
        if self.come is not None:
            self.come.set_result(None)

    def leave(self) -> None:
        if self._inside:
            self._inside = False
            self.bound.inside -= 1
            self.bound.gate.take(self.limits, -1)
            self.bound.gate.let_in()


class Bound:
    """Made by `Gate.bound`."""

    def __init__(self, gate: Gate, what: str, most: int | None) -> None:
        self.gate, self.what, self.most = gate, what, most
        self.inside = 0
        self.waiting: deque[Place] = deque()

    @property
    def free(self) -> bool:
        return self.most is None or self.inside < self.most

    @property
    def in_line(self) -> int:
        return sum(not place.come.cancelled() for place in self.waiting if place.come is not None)

    def head(self) -> Place | None:
        """Who waits longest and still wants to come in."""
        while self.waiting and self.waiting[0].come is not None and self.waiting[0].come.cancelled():
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None

    async def enter(self, limits: Limits) -> Place:
        """Waits for a place. Raises ValueError for limits that even an empty pool cannot grant."""
        self.gate.check(limits)
        place = Place(self, limits)
        place.come = asyncio.get_running_loop().create_future()
        self.waiting.append(place)
        self.gate.let_in()
        try:
            await place.come
        except asyncio.CancelledError:
            place.leave()  # it may have come at the same moment
            self.gate.let_in()  # or have been in the way of others
            raise
        return place

    def enter_at_once(self, limits: Limits) -> Place:
        """Raises SandboxError if that means to wait, ValueError for limits that even an empty pool cannot grant."""
        self.gate.check(limits)
        place = Place(self, limits)
        if not self.free or not self.gate.fits(limits):
            of = "" if self.most is None else f" of {self.most}"
            used = ", ".join(f"{name} {amount}" for name, amount in self.gate.used.items())
            raise SandboxError(f"there is no place for another: {self.inside}{of} {self.what}; in use: {used}")
        place.enter()
        return place

    @asynccontextmanager
    async def inside_of(self, limits: Limits) -> AsyncIterator[None]:
        place = await self.enter(limits)
        try:
            yield
        finally:
            place.leave()


def _above_zero(name: str, most: int | None) -> None:
    if most is not None and most < 1:
        raise ValueError(f"{name} is {most}: give a number above zero, or None for any number")
