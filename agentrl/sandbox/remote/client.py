"""The client: a pool whose sandboxes are other machines'. The same calls as of SandboxPool, the same results.

In: addresses of servers, a token, programs. Out: results; `infra_error` where no server could be had. A run may be
tried on another server without harm, for it can touch nothing but its own sandbox; its key keeps one server from doing
it twice.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..limits import Limits
from ..preload import as_preload
from ..result import STRENGTH, CallResult, RunResult, SandboxError, TierUnavailable
from ..shell import Shell
from . import wire
from .address import Address, Server
from .asking import Asker, Line, error_of
from .dialogue import HttpDialogue
from .session import HttpSession

_SILENCE_S = 10.0  # a server that works says so every second
_FIRST_PAUSE_S = 0.2  # for a server that does not answer at the start
_IDLE_S = 3600.0


class HttpPool:
    """Use it as `async with HttpPool(["http://10.0.0.5:8023"], token=...) as pool: result = await pool.run(code)`.

    Args:
        addresses: of the servers, `http://host:port` or `https://host:port`.
        minimum: the weakest tier that is accepted, of each single result.
        limits: the default ones.
        patience_s: how long a run may wait for its turn, beyond its own `wall_s`.
        attempts: servers that may fail on one run before it is given up; a server that is only busy does not count.
        running: requests at once.
        preload: modules, or a set of them, that the servers must have been started with.
        tls: for https; the system's authorities if None.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        token: str,
        minimum: str = "landlock",
        limits: Limits | None = None,
        patience_s: float = 60.0,
        attempts: int = 6,
        running: int = 256,
        preload: str | Sequence[str] = "bare",
        silence_s: float = _SILENCE_S,
        answer_bytes: int = 64 << 20,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if minimum not in STRENGTH:
            raise ValueError(f"{minimum!r} is no tier; there are: {', '.join(STRENGTH)}")
        self.servers = [Server(Address.parse(each)) for each in wire.listed(addresses)]
        if not self.servers:
            raise ValueError("there is no address of a server")
        self.limits = limits or Limits()
        self.tier = ""  # the weakest of those that answered at the start
        self._minimum, self._patience_s, self._preload = minimum, patience_s, as_preload(preload).modules
        self._asker = Asker(self.servers, token, tls, silence_s, answer_bytes, attempts)
        self._room = asyncio.Semaphore(running)
        self._open = False

    async def __aenter__(self) -> HttpPool:
        """Asks every server; those that do not answer are tried again later.

        Raises:
            SandboxError: none answers, one refuses the token or has not preloaded what is wanted.
            TierUnavailable: one that answers is weaker than the minimum.
        """
        found = await asyncio.gather(*(self._look(server) for server in self.servers))
        tiers = [each for each in found if not isinstance(each, str)]
        if not tiers:
            raise SandboxError("no server can be had: " + "; ".join(str(each) for each in found))
        self.tier = min((each["tier"] for each in tiers), key=lambda tier: STRENGTH.get(tier, -1))
        if not self.strong(self.tier):
            raise TierUnavailable(f"a server has tier {self.tier!r}, and at least {self._minimum!r} is wanted")
        if missing := {name for each in tiers for name in self._preload if name not in each.get("preload", ())}:
            raise SandboxError(f"a server has not preloaded {', '.join(sorted(missing))}: start it with --preload")
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False

    @property
    def features(self) -> Mapping[str, Any]:
        """Of this machine, which has no part in it: empty."""
        return {}

    async def _look(self, server: Server) -> dict[str, Any] | str:
        """Its status, or why there is none."""
        try:
            status, _, body = await self._asker.exchange(server, "GET", "/v1/status", b"", "")
            if status == 401:
                raise SandboxError(f"{server}: {error_of(body)}")
            said = wire.decode_answer(body)
            if status == 200 and isinstance(said.get("tier"), str):
                return said
            why = f"{server} answers {status}: {error_of(body)}"
        except (OSError, TimeoutError, ValueError) as error:
            why = f"{server}: {error or type(error).__name__}"
        server.failed(why, _FIRST_PAUSE_S)
        return why

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
        """As SandboxPool.run. Cancelling the call ends the run."""
        arguments = {"code": code, "stdin": stdin, "files": files, "argv": wire.listed(argv)}
        return await self._run("run", {**arguments, "collect_files": wire.listed(list(collect_files))}, limits)

    async def execute(
        self,
        command: Sequence[str],
        *,
        stdin: str | bytes = b"",
        files: Mapping[str, str | bytes] | None = None,
        collect_files: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> RunResult:
        """As SandboxPool.execute."""
        arguments = {"command": wire.listed(command), "stdin": stdin, "files": files}
        return await self._run("execute", {**arguments, "collect_files": list(collect_files)}, limits)

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
        """As SandboxPool.call."""
        given = {"code": code, "function": function, "args": list(args), "kwargs": dict(kwargs or {}), "files": files}
        said = await self._ask("call", given, limits or self.limits)
        if isinstance(said, RunResult):
            return CallResult(None, said)
        run = self._result(said)
        return CallResult(said.get("value") if run.ok else None, run)

    async def _run(self, verb: str, arguments: Mapping[str, Any], limits: Limits | None) -> RunResult:
        said = await self._ask(verb, arguments, limits or self.limits)
        return said if isinstance(said, RunResult) else self._result(said)

    def _result(self, said: Mapping[str, Any]) -> RunResult:
        try:
            run = wire.decode_run(said.get("run"), "http")
        except ValueError as error:
            return _broken(f"a server's answer makes no sense: {error}")
        if not self.strong(run.tier):
            return _broken(f"a server ran it on tier {run.tier!r}, and at least {self._minimum!r} is wanted")
        return run

    def strong(self, tier: str) -> bool:
        """Whether the tier is as strong as was demanded."""
        return STRENGTH.get(tier, -1) >= STRENGTH[self._minimum]

    async def _ask(self, verb: str, arguments: Mapping[str, Any], limits: Limits) -> dict[str, Any] | RunResult:
        """What a server answered, or why none did."""
        if not self._open:
            return _broken("the pool is not open: use it inside `async with`")
        work = wire.encode_work(verb, arguments, limits)
        async with self._room:
            return await self._try(verb, work, limits.wall_s + self._patience_s)

    async def _try(self, verb: str, work: dict[str, Any], within_s: float) -> dict[str, Any] | RunResult:
        key = uuid.uuid4().hex

        async def ask(server: Server, left_s: float) -> tuple[int, Mapping[str, str], Any]:
            body = json.dumps({**work, "deadline_s": left_s}).encode()
            status, headers, said = await self._asker.exchange(server, "POST", f"/v1/{verb}", body, key)
            return status, headers, wire.decode_answer(said) if status == 200 else said

        found = await self._asker.somewhere(ask, 200, within_s)
        return _broken(found) if isinstance(found, str) else found

    def session(
        self,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
        idle_s: float | None = None,
    ) -> HttpSession:
        """As SandboxPool.session. It lives on one server, and is lost with it. After an hour without a cell it ends, if
        `idle_s` says nothing else."""
        return HttpSession(self, files or {}, limits or self.limits, _IDLE_S if idle_s is None else idle_s)

    def shell(
        self,
        *,
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
        idle_s: float | None = None,
    ) -> Shell:
        """As SandboxPool.shell, in a session on a server."""
        return Shell(self.session(files=files, limits=limits, idle_s=idle_s))

    def dialogue(self, code: str, *, limits: Limits | None = None) -> HttpDialogue:
        """As SandboxPool.dialogue. It counts among the sessions of the server on which it lives."""
        return HttpDialogue(self, code, limits or self.limits)

    async def open_line(self, body: bytes, kind: str = "session") -> Line:
        """A connection for the session or dialogue that `body` asks for. Raises SandboxError if no server gives one."""
        if not self._open:
            raise SandboxError("the pool is not open: use it inside `async with`")
        return await self._asker.open_line(f"/v1/{kind}", body, self._patience_s)


def _broken(why: str) -> RunResult:
    return RunResult("infra_error", tier="", backend="http", error=why)
