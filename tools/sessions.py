"""Jailed sessions for tools: one for each episode, from one pool that all episodes share, here or on servers.

What comes in: what the sandbox should be like, and cells. What goes out: what they came to, or a SandboxFailure where
the machinery broke. The pool is opened at the first call and closed with the last environment that has used it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary, proxy

from agentrl.env.holdings import Holdings, holdings
from agentrl.errors import ConfigError, SandboxFailure
from agentrl.sandbox import (
    CellResult,
    CommandResult,
    Limits,
    Pool,
    PoolSession,
    SandboxError,
    SessionLost,
    Shell,
    open_pool,
)

OPEN_S = 90.0  # for a session to begin; a tool's deadline is longer, or this would look like the model's fault
QUEUE_S = 60.0  # that a call may wait for others of its turn: they run one after another
_PATIENCE_S = 80.0  # with servers that are full


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where an episode's code runs. Tools with equal ones share the episode's session, and so its files.

    Args:
        minimum: the weakest tier of isolation that is accepted.
        limits: of each session; `wall_s` is not used, tools have their own.
        preload: modules that are imported before the sessions begin, once for all; or "scientific" (numpy, sympy).
            Servers must have been started with them.
        idle_s: seconds without a call after which a session ends.
        servers: addresses of `sandbox-runner serve` to use instead of this machine. If there are none, those of the
            environment: see `open_pool`.
        token_file: holds the servers' token.
    """

    minimum: str = "landlock"
    limits: Limits = field(default_factory=Limits)
    preload: str | tuple[str, ...] = ()
    idle_s: float = 3600.0
    servers: tuple[str, ...] = ()
    token_file: str = ""

    def __post_init__(self) -> None:
        if bool(self.servers) != bool(self.token_file):
            raise ConfigError("Sandbox: servers and token_file go together; give both or none")


async def session(sandbox: Sandbox) -> PoolSession:
    """The episode's session, begun if there is none: for tools, and for `setup` and rewards of an environment.

    Raises:
        SandboxFailure: there is no sandbox to be had.
    """
    held = holdings()
    try:
        async with asyncio.timeout(OPEN_S):
            return await held.for_episode(sandbox, partial(_begin, sandbox, await _pool(sandbox, held)))
    except SandboxError as error:
        raise SandboxFailure(f"no session: {error}") from error
    except TimeoutError as error:
        raise SandboxFailure(f"no session could be had within {OPEN_S:g} s") from error


async def run_cell(sandbox: Sandbox, cell: str, wall_s: float) -> tuple[CellResult, str]:
    """Run `cell` in the episode's session. The text is for the model: that the session is a new one, or empty.

    Raises:
        SandboxFailure: the sandbox failed, which says nothing about the code.
    """
    return await _run(sandbox, lambda current: current.run(cell, wall_s=wall_s))


async def run_command(sandbox: Sandbox, command: str, wall_s: float, kept_bytes: int) -> tuple[CommandResult, str]:
    """As `run_cell`, in the shell of the episode's session.

    Raises:
        SandboxFailure: the sandbox failed, or may start no programs.
    """

    async def run(current: PoolSession) -> CommandResult:
        shell = _shells.setdefault(current, Shell(proxy(current)))  # which must not keep it alive
        shell.check()
        return await shell.run(command, wall_s=wall_s, kept_bytes=kept_bytes)

    return await _run(sandbox, run)


_shells: WeakKeyDictionary[PoolSession, Shell] = WeakKeyDictionary()
Result = TypeVar("Result", CellResult, CommandResult)


async def _run(sandbox: Sandbox, work: Callable[[PoolSession], Awaitable[Result]]) -> tuple[Result, str]:
    news = ""
    while True:
        current = await session(sandbox)
        try:
            result = await work(current)
            break
        except SessionLost as error:  # before this call: idle, or cancelled in the middle of the last one
            news = f"[{error}. Its variables and files are gone; this is a new session.]\n"
            await holdings().drop(sandbox, current)
        except SandboxError as error:
            raise SandboxFailure(str(error)) from error
    if result.lost:
        await holdings().drop(sandbox, current)
    if result.status == "infra_error":
        raise SandboxFailure(result.error or "the sandbox failed in the middle of a call")
    return result, news


async def _pool(sandbox: Sandbox, held: Holdings) -> Pool:
    place = sandbox.minimum, sandbox.preload, sandbox.servers, sandbox.token_file
    return await held.shared(("sandbox pool", *place), partial(_open, sandbox))


def _open(sandbox: Sandbox) -> Pool:
    try:
        return open_pool(
            addresses=sandbox.servers or None,
            token_file=sandbox.token_file,
            minimum=sandbox.minimum,
            preload=sandbox.preload,
            patience_s=_PATIENCE_S,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"the sandboxes cannot be used: {error}") from error


def _begin(sandbox: Sandbox, pool: Pool) -> PoolSession:
    return pool.session(limits=sandbox.limits, idle_s=sandbox.idle_s)
