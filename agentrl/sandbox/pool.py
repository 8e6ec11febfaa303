"""The pool: workers of one tier, runs spread over them, a bound on how many run at once.

In: programs and limits. Out: results. Verdicts are formed here, in the caller's process, and nowhere else.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from .bounds import Gate, Place
from .call import call
from .collect import collect
from .inputs import as_bytes, as_files, check_name
from .jail.order import Mode, Order, encode_payload
from .limits import Limits
from .live import LiveRun, Taker
from .metrics import Meter, Metrics
from .preload import as_preload
from .result import STRENGTH, CallResult, RunResult, SandboxError, TierUnavailable
from .session import Session
from .shell import Shell
from .verdict import judge
from .worker import Worker

_AUTOMATIC = ("zygote", "landlock")


class SandboxPool:
    """Runs untrusted Python. Use it as `async with SandboxPool() as pool: result = await pool.run(code)`.

    `tier`: which isolation, or None for the strongest that works here. `minimum`: the weakest that is accepted; a
    weaker machine raises TierUnavailable at the start. `workers`: fork servers, one for each processor if None.
    `running`: runs at once. `sessions`: sessions at once, shells too; None for any number. `starting`: runs and
    sessions whose walls are being built. `memory_bytes`, `processes`: for all that lives together, as the sums of
    their limits; who does not fit waits. `preload`: modules that every run finds imported, or a set of them: "bare" or
    "scientific" (numpy and sympy, used once). `warm`: a program run once after that. `limits`: the default ones.
    """

    def __init__(
        self,
        *,
        tier: str | None = None,
        minimum: str = "landlock",
        workers: int | None = None,
        running: int | None = None,
        sessions: int | None = None,
        starting: int | None = None,
        memory_bytes: int | None = None,
        processes: int | None = None,
        preload: str | Sequence[str] = "bare",
        warm: str = "",
        limits: Limits | None = None,
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
        self._wanted = (tier,) if tier else tuple(t for t in _AUTOMATIC if STRENGTH[t] >= STRENGTH[minimum])
        if tier and STRENGTH[tier] < STRENGTH[minimum] and tier != "none":
            raise ValueError(f"tier {tier!r} is weaker than the minimum {minimum!r}")
        self._count = workers or _processors()
        self._gate = Gate(memory_bytes, processes)
        self._room = self._gate.bound("runs", running or 4 * self._count)
        self._seats = self._gate.bound("sessions", sessions)
        self._starts = asyncio.Semaphore(starting or 4 * self._count)
        self._starting = 0
        self.meter = Meter()
        self._preload = as_preload(preload, warm)
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
        self._gate.open_wide()
        for live in self._lives:
            live.give_up("the pool was closed")

    async def _open(self, tier: str) -> None:
        """All workers of this tier, and one run that shows that a run has its walls."""
        self.tier = tier
        others: list[asyncio.Task[None]] = []
        try:
            await self._add_worker()
            others = [asyncio.create_task(self._add_worker()) for _ in range(self._count - 1)]
            await asyncio.gather(*others)
            tried = await self._try()
        except BaseException:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)  # one may have started all the same
            self._drop_workers()
            raise
        if tried.stdout != "42\n":
            self._drop_workers()
            raise TierUnavailable(f"tier {tier!r} cannot be had here: {tried.error or tried.stderr}")

    async def _try(self) -> RunResult:
        plain = Limits()
        most = {name: min(most, getattr(plain, name)) for name, most in self._gate.most.items()}
        limits = dataclasses.replace(plain, **most)
        tried = await self.run("print(6 * 7)", limits=limits)
        self.meter = Meter()
        return tried

    def _drop_workers(self) -> None:
        for worker in self.workers:
            worker.close()
        self.workers = []

    async def _add_worker(self) -> None:
        self.workers.append(await self._new_worker())

    async def _new_worker(self) -> Worker:
        worker = Worker(self.tier, self._preload)
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
        async with self.place(limits):
            try:
                live = await self.launch(order, limits, payload, as_bytes(stdin))
            except SandboxError as error:
                return self.no_run(error)
            try:
                await live.done
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

        It is not counted among the runs at once, but among the `sessions`. After `idle_s` seconds without a cell it
        ends.
        """
        return Session(self, limits or self.limits, as_files(files), idle_s)

    def shell(
        self,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
        idle_s: float | None = None,
    ) -> Shell:
        """A stateful bash, in a session of its own: `async with pool.shell() as shell: await shell.run("ls")`."""
        return Shell(self.session(files=files, limits=limits, idle_s=idle_s))

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

    @asynccontextmanager
    async def place(self, limits: Limits) -> AsyncIterator[None]:
        """Among the runs at once. Raises ValueError for limits that the whole pool does not have."""
        began = time.monotonic()
        async with self._room.inside_of(limits):
            self.meter.took("queue", time.monotonic() - began)
            yield

    async def place_for_session(self, limits: Limits) -> Place:
        """To be left by the caller. Raises ValueError for limits that the whole pool does not have."""
        return await self._seats.enter(limits)

    def place_for_fork(self, limits: Limits) -> Place:
        """Raises SandboxError if there is none: who has a session and waits for another may wait for ever."""
        return self._seats.enter_at_once(limits)

    def metrics(self) -> Metrics:
        """What the pool has done since it was opened, and does now."""
        return Metrics(
            runs=dict(self.meter.runs),
            cells=dict(self.meter.cells),
            kills=dict(self.meter.kills),
            latency={phase: each.summary() for phase, each in self.meter.phases.items()},
            running=self._room.inside,
            cells_running=self.meter.cells_running,
            sessions=self._seats.inside,
            waiting=self._room.in_line + self._seats.in_line,
            starting=self._starting,
            memory_bytes=self._gate.used["memory_bytes"],
            processes=self._gate.used["processes"],
        )

    def order(self, mode: Mode, limits: Limits, *, show_folder: bool = False, source: str = "") -> Order:
        stays = mode in ("cells", "branch", "keeper")
        return Order(
            mode=mode,
            wall_s=0.0 if stays else limits.wall_s,
            cpu_s=limits.cpu_s,
            address_bytes=limits.address_bytes,
            memory_bytes=limits.memory_bytes,
            processes=limits.processes,
            disk_bytes=limits.disk_bytes,
            files=limits.files,
            open_files=limits.open_files,
            show_folder=show_folder,
            name=f"run-{next(self._names)}",
            source=source,
        )

    async def launch(
        self,
        order: Order,
        limits: Limits,
        payload: bytes,
        stdin: bytes = b"",
        spare: int | None = None,
        worker: Taker | None = None,
    ) -> LiveRun:
        """A started run; give it to `release`. On the worker with the least to do, if none is named. It counts as
        starting until its walls stand. Raises SandboxError if it fails.
        """
        await self._starts.acquire()
        try:
            live = await self._launch(order, limits, payload, stdin, spare, worker)
        except BaseException:
            self._starts.release()
            raise
        self._starting += 1
        live.ready.add_done_callback(self._started)
        return live

    def _started(self, _: object) -> None:
        self._starting -= 1
        self._starts.release()

    async def _launch(
        self, order: Order, limits: Limits, payload: bytes, stdin: bytes, spare: int | None, worker: Taker | None
    ) -> LiveRun:
        worker = worker or await self._pick()
        live = LiveRun(worker, order, limits.output_bytes)
        worker.load += 1
        try:
            await live.start(payload, stdin, spare)
        except OSError as error:
            worker.load -= 1
            raise SandboxError(f"the run could not be started: {error}") from error
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
                    new = await self._new_worker()
                    if self._closed:
                        new.close()
                        raise SandboxError("the pool was closed")
                    self.workers[place] = new

    def result(self, live: LiveRun, limits: Limits, wanted: Sequence[str] = ()) -> RunResult:
        """What a run came to. If it has not ended, that is the sandbox's failure."""
        began = time.monotonic()
        result = self._result(live, limits, wanted)
        self.meter.took("collect", time.monotonic() - began)
        if live.ready_s:
            self.meter.took("start", live.ready_s)
            self.meter.took("run", max(0.0, began - live.began - live.ready_s))
        if reason := "output" if live.overflowed else live.ending.killed if live.ending else "":
            self.meter.kill(reason)
        if live.order.mode in ("program", "call"):
            self.meter.run(result.status)
        return result

    def no_run(self, error: SandboxError) -> RunResult:
        """What a run came to that could not be started."""
        self.meter.run("infra_error")
        return RunResult("infra_error", tier=self.tier, backend=self.tier, error=str(error))

    def _result(self, live: LiveRun, limits: Limits, wanted: Sequence[str]) -> RunResult:
        stdout, cut_out = live.stdout.take()
        stderr, cut_err = live.stderr.take()
        if live.ending is None:
            return RunResult(
                "infra_error", stdout=stdout, stderr=stderr, tier=self.tier, backend=self.tier, error=live.trouble
            )
        status, error = judge(live.ending, limits, overflowed=live.overflowed)
        files: dict[str, bytes] = {}
        if wanted and live.folder is not None:
            files, left_out = collect(live.folder, wanted, limits.result_bytes)
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


def _processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
