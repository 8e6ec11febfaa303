"""The pool: workers of one tier, runs spread over them, a bound on how many run at once.

In: programs and limits. Out: results. Verdicts are formed here, in the caller's process, and nowhere else.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from .bounds import Gate, Place
from .call import call
from .choice import place_for, processors, tiers_for
from .containers import DEFAULT_IMAGE
from .crew import TRIES, Crew
from .dialogue import Dialogue
from .inputs import as_bytes, as_files, check_name
from .jail.order import Mode, Order, encode_payload
from .limits import Limits
from .live import LiveRun, Taker
from .metrics import Meter, Metrics
from .outcome import result_of
from .preload import as_preload
from .result import STRENGTH, CallResult, RunResult, SandboxError, TierUnavailable, WorkerGone, starting
from .session import Session
from .shell import Shell
from .worker import Worker


class SandboxPool:
    """Runs untrusted Python. Use it as `async with SandboxPool() as pool: result = await pool.run(code)`.

    `tier`: which isolation, or None for the strongest that works here. `minimum`: the weakest that is accepted; a
    weaker machine raises TierUnavailable at the start. `workers`: fork servers, one for each processor if None.
    `running`: runs at once. `sessions`: sessions at once, shells too; None for any number. `starting`: runs and
    sessions whose walls are being built. `memory_bytes`, `processes`: for all that lives together, as the sums of
    their limits; who does not fit waits. `preload`: modules that every run finds imported, or a set of them: "bare" or
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
        sessions: int | None = None,
        starting: int | None = None,
        memory_bytes: int | None = None,
        processes: int | None = None,
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
        self._gate = Gate(memory_bytes, processes)
        self._room = self._gate.bound("runs", self._running)
        self._seats = self._gate.bound("sessions", sessions)
        self._starts = asyncio.Semaphore(starting or 4 * self._count)
        self._starting = 0
        self.meter = Meter()
        self._image = image
        self.preload = as_preload(preload, warm)
        self._names = itertools.count(1)
        self._crew: Crew | None = None
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
        crew = self._crew
        assert crew is not None
        crew.close()
        self._gate.open_wide()
        for live in self._lives:
            live.give_up("the pool was closed")
        await crew.gone()

    async def _open(self, tier: str) -> None:
        """All workers of this tier, and one run that shows that a run has its walls."""
        self.tier = tier
        place = place_for(tier, self.limits, -(-self._running // self._count), self._image)
        crew = self._crew = Crew(place, self.preload)
        try:
            await crew.open(self._count)
            tried = await self._try()
        except BaseException:
            await self._dismiss(crew)
            raise
        if tried.stdout != "42\n":
            await self._dismiss(crew)
            raise TierUnavailable(f"tier {tier!r} cannot be had here: {tried.error or tried.stderr}")

    async def _dismiss(self, crew: Crew) -> None:
        self._crew = None
        crew.close()
        await crew.gone()

    async def _try(self) -> RunResult:
        plain = Limits()
        most = {name: min(most, getattr(plain, name)) for name, most in self._gate.most.items()}
        tried = await self.run("print(6 * 7)", limits=dataclasses.replace(plain, **most))
        self.meter = Meter()
        return tried

    @property
    def workers(self) -> Sequence[Worker]:
        return self._crew.workers if self._crew else ()

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
                live = await self.finished(order, limits, payload, as_bytes(stdin))
            except SandboxError as error:
                return self.no_run(error)
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

    def dialogue(self, code: str, *, limits: Limits | None = None) -> Dialogue:
        """A program to talk with: `async with pool.dialogue(code) as talk: await talk.send({...})`.

        It says and hears JSON objects over its descriptor 3, each after 4 bytes of length, and goes on until it is
        left: `limits.wall_s` is not used, and it is not counted among the runs at once.
        """
        return Dialogue(self, code, limits or self.limits)

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
        """Raises ValueError for limits that this pool was not made for."""
        if self._crew is not None:
            self._crew.place.check(limits)
            if show_folder and not self._crew.place.files:
                raise ValueError(f"tier {self.tier!r} brings no files back: let the program print what it made")
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

    async def finished(
        self, order: Order, limits: Limits, payload: bytes, stdin: bytes = b"", spare: int | None = None
    ) -> LiveRun:
        """A run that is over; give it to `release`. If its worker died before the program began, another one had it.

        Raises SandboxError if it could not be started.
        """
        for left in reversed(range(TRIES)):
            live = await self.launch(order, limits, payload, stdin, spare)
            try:
                await live.done
            except BaseException:
                self.release(live)
                raise
            if not (live.unbegun and left) or self._crew is None or self._crew.closed:
                break
            self.release(live)
        return live

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
        for left in reversed(range(TRIES)):
            try:
                return await self._launch_on(worker or await self._pick(), order, limits, payload, stdin, spare)
            except WorkerGone:
                if worker or not left:
                    raise
        raise AssertionError

    async def _launch_on(
        self, worker: Taker, order: Order, limits: Limits, payload: bytes, stdin: bytes, spare: int | None
    ) -> LiveRun:
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
        if self._crew is None:
            raise SandboxError("the pool is not open: use it inside `async with`")
        return await self._crew.pick()

    def result(self, live: LiveRun, limits: Limits, wanted: Sequence[str] = ()) -> RunResult:
        """What a run came to. If it has not ended, that is the sandbox's failure."""
        began = time.monotonic()
        result = result_of(live, limits, wanted, self.tier)
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
