"""The pool: workers of one tier, runs spread over them, a bound on how many run at once.

In: programs and limits. Out: results. Verdicts are formed here, in the caller's process, and nowhere else.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from .call import call
from .choice import place_for, processors, tiers_for
from .collect import collect
from .containers import DEFAULT_IMAGE
from .dialogue import Dialogue
from .inputs import as_bytes, as_files, check_name
from .jail.order import Mode, Order, encode_payload
from .limits import Limits
from .live import LiveRun
from .preload import as_preload
from .result import STRENGTH, CallResult, RunResult, SandboxError, TierUnavailable, WorkerGone, starting
from .session import Session
from .surely import surely
from .verdict import judge
from .worker import Worker

_TRIES = 3  # of what a dying worker keeps from beginning


class SandboxPool:
    """Runs untrusted Python. Use it as `async with SandboxPool() as pool: result = await pool.run(code)`.

    `tier`: which isolation, or None for the strongest that works here. `minimum`: the weakest that is accepted; a
    weaker machine raises TierUnavailable at the start. `workers`: fork servers, one for each processor if None.
    `running`: runs at once. `preload`: modules that every run finds imported, or a set of them: "bare" or
    "scientific" (numpy and sympy, used once). `warm`: a program run once after that.
    `limits`: the default ones. `image`: for tiers whose workers live in containers, which are made for
    `running` runs with these limits; it is never fetched.
    """

    def __init__(
        self,
        *,
        tier: str | None = None,
        minimum: str = "landlock",
        workers: int | None = None,
        running: int | None = None,
        preload: str | Sequence[str] = "bare",
        warm: str = "",
        limits: Limits | None = None,
        image: str = DEFAULT_IMAGE,
        i_know_this_is_unsafe: bool = False,
    ) -> None:
        for name in (tier or "zygote", minimum):
            if name not in STRENGTH:
                raise ValueError(f"{name!r} is no tier; there are: {', '.join(STRENGTH)}")
        if tier == "none" and not i_know_this_is_unsafe:
            raise ValueError(
                "tier 'none' has no walls: the code can do all that you can. Say i_know_this_is_unsafe=True"
            )
        self.limits = limits or Limits()
        self.tier = ""
        self._wanted = tiers_for(tier, minimum)
        if tier and STRENGTH[tier] < STRENGTH[minimum] and tier != "none":
            raise ValueError(f"tier {tier!r} is weaker than the minimum {minimum!r}")
        self._count = workers or processors()
        self._running = running or 4 * self._count
        self._room = asyncio.Semaphore(self._running)
        self._image = image
        self.preload = as_preload(preload, warm)
        self._mending = asyncio.Lock()
        self._names = itertools.count(1)
        self._closed = False
        self.workers: list[Worker] = []
        self._lives: set[LiveRun] = set()

    async def __aenter__(self) -> SandboxPool:
        if sys.platform != "linux":
            raise TierUnavailable(f"this is {sys.platform}: every tier needs Linux")
        refused = []
        for tier in self._wanted:
            try:
                await self._open(tier)
                return self
            except TierUnavailable as error:
                refused.append(str(error))
        raise TierUnavailable("; ".join(refused) or "no tier is left to try")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for worker in self.workers:
            worker.close()
        for live in self._lives:
            live.give_up("the pool was closed")
        await self._all_gone(self.workers)

    async def _open(self, tier: str) -> None:
        """All workers of this tier, and one run that shows that a run has its walls."""
        self.tier = tier
        self._place = place_for(tier, self.limits, -(-self._running // self._count), self._image)
        others: list[asyncio.Task[None]] = []
        try:
            await self._add_worker()
            others = [asyncio.create_task(self._add_worker()) for _ in range(self._count - 1)]
            await asyncio.gather(*others)
            tried = await self.run("print(6 * 7)", limits=Limits())
        except BaseException:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)  # one may have started all the same
            await self._drop_workers()
            raise
        if tried.stdout != "42\n":
            await self._drop_workers()
            raise TierUnavailable(f"tier {tier!r} cannot be had here: {tried.error or tried.stderr}")

    async def _drop_workers(self) -> None:
        dropped, self.workers = self.workers, []
        for worker in dropped:
            worker.close()
        await self._all_gone(dropped)

    async def _all_gone(self, workers: Sequence[Worker]) -> None:
        await surely(asyncio.gather(*(worker.gone() for worker in workers)))

    async def _add_worker(self) -> None:
        self.workers.append(await self._new_worker())

    async def _new_worker(self) -> Worker:
        worker = Worker(self._place, self.preload)
        await worker.start()
        return worker

    @property
    def features(self) -> Mapping[str, Any]:
        """What this machine gave to the walls."""
        return self.workers[0].features if self.workers else {}

    async def run(
        self,
        code: str,
        *,
        stdin: str | bytes = b"",
        files: Mapping[str, str | bytes] | None = None,
        argv: Sequence[str] = (),
        collect_files: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> RunResult:
        """Runs a program in a process of its own. `files`: what its working folder holds; `collect_files`: names to
        bring back.

        Never raises for anything the program does. Cancelling the call ends the run. Raises ValueError for a bad file
        name.
        """
        return await self._run({"code": code, "argv": list(argv)}, stdin, files, collect_files, limits)

    async def execute(
        self,
        command: Sequence[str],
        *,
        stdin: str | bytes = b"",
        files: Mapping[str, str | bytes] | None = None,
        collect_files: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> RunResult:
        """As `run`, for a program of the system: `["bash", "-c", "ls | wc -l"]`. It is looked for in /usr/local/bin,
        /usr/bin and /bin; exit code 127 if it is not there, 126 if it may not be started, as on tier `landlock`.
        Raises ValueError if `command` is empty.
        """
        if not command:
            raise ValueError("the command is empty: give the program's name and its arguments")
        return await self._run({"command": list(command)}, stdin, files, collect_files, limits)

    async def _run(
        self,
        head: dict[str, Any],
        stdin: str | bytes,
        files: Mapping[str, str | bytes] | None,
        collect_files: Iterable[str],
        limits: Limits | None,
    ) -> RunResult:
        limits = limits or self.limits
        wanted = [check_name(name) for name in collect_files]
        payload = encode_payload(head, as_files(files))
        order = self.order("program", limits, show_folder=bool(wanted))
        async with self._room:
            try:
                live = await self.finished(order, limits, payload, as_bytes(stdin))
            except SandboxError as error:
                return RunResult("infra_error", tier=self.tier, backend=self.tier, error=str(error))
            try:
                return self.result(live, limits, wanted)
            finally:
                self.release(live)

    def session(
        self,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
        idle_s: float | None = None,
    ) -> Session:
        """A stateful session: `async with pool.session() as session: await session.run(cell)`.

        It is not counted among the runs at once. After `idle_s` seconds without a cell it ends.
        """
        return Session(self, limits or self.limits, as_files(files), idle_s)

    async def call(
        self,
        code: str,
        function: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
    ) -> CallResult:
        """Runs `code`, calls its `function` and returns the value, which crosses as JSON: compare it with `same_value`.

        One process for one call, so that nothing can be remembered from case to case. The value counts only if the
        process ended by itself with exit code 0 and said exactly one thing. Raises TypeError if the arguments are not
        JSON's.
        """
        given = json.dumps([list(args), dict(kwargs or {})])
        head = {"code": code, "function": function, "arguments": given}
        return await call(self, head, as_files(files), limits or self.limits)

    def dialogue(self, code: str, *, limits: Limits | None = None) -> Dialogue:
        """A program to talk with: `async with pool.dialogue(code) as talk: await talk.send({...})`.

        It says and hears JSON objects over its descriptor 3, each after 4 bytes of length, and goes on until it is
        left: `limits.wall_s` is not used, and it is not counted among the runs at once.
        """
        return Dialogue(self, code, limits or self.limits)

    @property
    def room(self) -> asyncio.Semaphore:
        """Of the runs at once."""
        return self._room

    def order(self, mode: Mode, limits: Limits, *, show_folder: bool = False) -> Order:
        """Raises ValueError for limits that this pool was not made for."""
        if self.workers:
            self._place.check(limits)
            if show_folder and not self._place.files:
                raise ValueError(f"tier {self.tier!r} brings no files back: let the program print what it made")
        return Order(
            mode=mode,
            wall_s=0.0 if mode == "cells" else limits.wall_s,
            cpu_s=0.0 if mode == "cells" else limits.cpu_s,
            address_bytes=limits.address_bytes,
            memory_bytes=limits.memory_bytes,
            processes=limits.processes,
            disk_bytes=limits.disk_bytes,
            files=limits.files,
            open_files=limits.open_files,
            show_folder=show_folder,
            name=f"run-{next(self._names)}",
        )

    async def finished(
        self, order: Order, limits: Limits, payload: bytes, stdin: bytes = b"", spare: int | None = None
    ) -> LiveRun:
        """A run that is over; give it to `release`. If its worker died before the program began, another one had it.

        Raises SandboxError if it could not be started.
        """
        for left in reversed(range(_TRIES)):
            live = await self.launch(order, limits, payload, stdin, spare)
            try:
                await live.done
            except BaseException:
                self.release(live)
                raise
            if not (live.unbegun and left) or self._closed:
                break
            self.release(live)
        return live

    async def launch(
        self, order: Order, limits: Limits, payload: bytes, stdin: bytes = b"", spare: int | None = None
    ) -> LiveRun:
        """A started run on the worker with the least to do; give it to `release`. Raises SandboxError if it fails."""
        for left in reversed(range(_TRIES)):
            try:
                return await self._launch(order, limits, payload, stdin, spare)
            except WorkerGone:
                if not left:
                    raise
        raise AssertionError

    async def _launch(self, order: Order, limits: Limits, payload: bytes, stdin: bytes, spare: int | None) -> LiveRun:
        worker = await self._pick()
        live = LiveRun(worker, order, limits.output_bytes)
        worker.load += 1
        try:
            with starting("the run"):
                await live.start(payload, stdin, spare)
        except BaseException:
            worker.load -= 1
            raise
        self._lives.add(live)
        return live

    def release(self, live: LiveRun) -> None:
        live.close()
        live.worker.load -= 1
        self._lives.discard(live)

    async def _pick(self) -> Worker:
        if self._closed or not self.workers:
            raise SandboxError("the pool is not open: use it inside `async with`")
        if not all(worker.alive for worker in self.workers):
            await self._mend()
        return min(self.workers, key=lambda worker: worker.load)

    async def _mend(self) -> None:
        """Puts new workers in the place of dead ones."""
        async with self._mending:
            for place, worker in enumerate(self.workers):
                if not worker.alive:
                    await worker.gone()
                    new = await self._replacement()
                    if self._closed:
                        new.close()
                        await new.gone()
                        raise SandboxError("the pool was closed")
                    self.workers[place] = new

    async def _replacement(self) -> Worker:
        """Whatever ended the last one may end the next before it stands."""
        for left in reversed(range(_TRIES)):
            try:
                return await self._new_worker()
            except SandboxError:
                if not left or self._closed:
                    raise
        raise AssertionError

    def result(self, live: LiveRun, limits: Limits, wanted: Sequence[str] = ()) -> RunResult:
        """What a run came to. If it has not ended, that is the sandbox's failure."""
        stdout, cut_out = live.stdout.take()
        stderr, cut_err = live.stderr.take()
        if live.ending is None:
            return RunResult(
                "infra_error", stdout=stdout, stderr=stderr, tier=self.tier, backend=self.tier, error=live.trouble
            )
        status, error = judge(live.ending, limits, overflowed=live.overflowed)
        files: dict[str, bytes] = {}
        if wanted:
            try:
                files, left_out = collect(live.folder, wanted, limits.result_bytes)
            except OSError as lack:
                status, error, left_out = "infra_error", f"its files could not be fetched: {lack}", False
            error = error or (f"files over {limits.result_bytes} bytes were left out" if left_out else "")
        return RunResult(
            status,
            exit_code=live.ending.exit_code,
            signal=live.ending.signal,
            stdout=stdout,
            stderr=stderr,
            truncated=cut_out or cut_err,
            wall_s=live.ending.wall_s,
            cpu_s=live.ending.cpu_s,
            max_rss=live.ending.max_rss,
            files=files,
            tier=self.tier,
            backend=self.tier,
            error=error,
        )
