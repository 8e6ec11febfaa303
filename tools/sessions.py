"""Jailed sessions for tools: one for each episode, from one pool of this process that all episodes share.

What comes in: what the sandbox should be like, and cells. What goes out: what they came to, or a SandboxFailure where
the machinery broke. The pool is opened at the first call and closed with the last environment that has used it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from agentrl.env.holdings import Holdings, holdings
from agentrl.errors import SandboxFailure
from agentrl.sandbox import CellResult, Limits, SandboxError, SandboxPool, Session, SessionLost


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where an episode's code runs. Tools with equal ones share the episode's session, and so its files.

    Args:
        minimum: the weakest tier of isolation that is accepted.
        limits: of each session; `wall_s` is not used, tools have their own.
        preload: modules that are imported before the sessions begin, once for all of them.
        idle_s: seconds without a call after which a session ends.
    """

    minimum: str = "landlock"
    limits: Limits = field(default_factory=Limits)
    preload: tuple[str, ...] = ()
    idle_s: float = 3600.0


async def session(sandbox: Sandbox) -> Session:
    """The episode's session, begun if there is none: for tools, and for `setup` and rewards of an environment.

    Raises:
        SandboxFailure: there is no sandbox to be had.
    """
    held = holdings()
    try:
        return await held.for_episode(sandbox, partial(_begin, sandbox, await _pool(sandbox, held)))
    except SandboxError as error:
        raise SandboxFailure(f"no session: {error}") from error


async def run_cell(sandbox: Sandbox, cell: str, wall_s: float) -> tuple[CellResult, str]:
    """Run `cell` in the episode's session. The text is for the model: that the session is a new one, or empty.

    Raises:
        SandboxFailure: the sandbox failed, which says nothing about the code.
    """
    news = ""
    while True:
        current = await session(sandbox)
        try:
            result = await current.run(cell, wall_s=wall_s)
            break
        except SessionLost as error:  # before this cell: idle, or cancelled in the middle of the last one
            news = f"[{error}. Its variables and files are gone; this is a new session.]\n"
            await holdings().drop(sandbox, current)
        except SandboxError as error:
            raise SandboxFailure(str(error)) from error
    if result.lost:
        await holdings().drop(sandbox, current)
    if result.status == "infra_error":
        raise SandboxFailure(result.error or "the sandbox failed in the middle of a cell")
    return result, news


async def _pool(sandbox: Sandbox, held: Holdings) -> SandboxPool:
    minimum, preload = sandbox.minimum, sandbox.preload
    return await held.shared(("sandbox pool", minimum, preload), partial(SandboxPool, minimum=minimum, preload=preload))


def _begin(sandbox: Sandbox, pool: SandboxPool) -> Session:
    return pool.session(limits=sandbox.limits, idle_s=sandbox.idle_s)
