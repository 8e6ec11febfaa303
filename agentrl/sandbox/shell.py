"""A stateful shell: one bash in a session, whose folder, variables and files stay from command to command.

In: command lines. Out: what they wrote, and how they ended. It stands on any session, here or on a server, and shares
the session's files and processes with the Python in it. As of sessions, what comes back is the word of the code there.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .result import CellResult, CommandResult, SandboxError

if TYPE_CHECKING:
    from .protocol import PoolSession

KEPT_BYTES = 1 << 16  # of what a command writes

_MARGIN_S = 3.0  # for the driver to end a command before the session ends the driver
_STARTS_NOTHING = ("landlock",)  # tiers
_TEXT = Path(__file__).with_name("shell_driver.py").read_text(encoding="utf-8")
_INSTALL = f"""
import sys as _sys
_sys.modules["shell_driver"] = type(_sys)("shell_driver")
exec({_TEXT!r}, vars(_sys.modules["shell_driver"]))
del _sys
"""
_RUN = '__import__("sys").modules["shell_driver"].run({command!r}, {wall_s!r}, {kept_bytes!r})'


class Shell:
    """`async with pool.shell() as shell: result = await shell.run("ls | wc -l")`; or on a session that is open already:
    `Shell(session)`. A fork of the session has no shell of its own until one is asked for, and then a new one.
    """

    def __init__(self, session: PoolSession) -> None:
        self.session = session
        self._installed = False

    async def __aenter__(self) -> Shell:
        """Raises SandboxError if there is no session to be had, or where no program may be started."""
        await self.session.__aenter__()
        try:
            self.check()
        except SandboxError:
            self.session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session. May be called more than once."""
        self.session.close()

    def check(self) -> None:
        """Raises SandboxError where no program may be started."""
        pool = self.session.pool
        if (tier := pool.features.get("inside", pool.tier)) in _STARTS_NOTHING:
            raise SandboxError(
                f"a shell starts programs, which tier {tier!r} does not allow: zygote or bwrap is wanted"
            )

    async def run(self, command: str, *, wall_s: float | None = None, kept_bytes: int = KEPT_BYTES) -> CommandResult:
        """Runs one or more lines, without a terminal and without input.

        At its limit a command is killed, and the shell with it. Raises SessionLost as `Session.run` does, ValueError
        for what cannot be kept within the session's `output_bytes`.
        """
        limits = self.session.limits
        if not 0 < kept_bytes <= (most := limits.output_bytes // 2):
            raise ValueError(f"kept_bytes is {kept_bytes}: at most half of Limits.output_bytes, {most}")
        wall_s = wall_s or limits.wall_s
        began = time.monotonic()
        if not self._installed:
            cell = await self.session.run(_INSTALL)
            if not cell.ok:
                return _unanswered(cell, time.monotonic() - began)
            self._installed = True
        asked = _RUN.format(command=command, wall_s=wall_s, kept_bytes=kept_bytes)
        cell = await self.session.run(asked, wall_s=wall_s + _MARGIN_S)
        said = _read(cell)
        if said is None:
            self._installed = False  # whatever has become of the driver
            return _unanswered(cell, time.monotonic() - began)
        return _judge(said, cell, wall_s, time.monotonic() - began)


def _read(cell: CellResult) -> Mapping[str, Any] | None:
    """What the driver said, or None if that makes no sense."""
    try:
        said = json.loads(cell.stdout) if cell.ok else None
        if not isinstance(said, dict) or said["how"] not in ("exit", "late", "gone"):
            return None
        out = base64.b64decode(said["out"], validate=True).decode("utf-8", "replace")
        if not isinstance(said["code"], int) or not isinstance(said["cut"], int):
            return None
        return {**said, "out": out}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _judge(said: Mapping[str, Any], cell: CellResult, limit_s: float, wall_s: float) -> CommandResult:
    late, gone = said["how"] == "late", said["how"] == "gone"
    code = None if late else said["code"]
    error = ""
    if late:
        error = f"it was killed after {limit_s:g} s, and the shell with it"
    elif gone:
        error = f"the shell ended with exit code {code}"
    return CommandResult(
        status="timeout" if late else "ok" if code == 0 else "error",
        exit_code=code,
        stdout=said["out"],
        cut=said["cut"],
        wall_s=wall_s,
        error=error,
        shell_lost=late or gone,
        tier=cell.tier,
    )


def _unanswered(cell: CellResult, wall_s: float) -> CommandResult:
    """The session was lost, or its code has spoilt the driver."""
    status = "error" if cell.ok else cell.status
    return CommandResult(
        status=status,
        stdout=cell.stdout + cell.stderr,
        wall_s=wall_s,
        error=cell.error if cell.lost else "the driver of the shell gave no answer that makes sense",
        shell_lost=True,
        lost=cell.lost,
        tier=cell.tier,
    )
