"""What a run came to, and the errors of this package. Plain values."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "error", "timeout", "memory", "output_limit", "signal", "infra_error"]
Tier = Literal["none", "landlock", "bwrap", "zygote", "docker", "podman", "gvisor"]

STRENGTH: Mapping[str, int] = {
    "none": 0,
    "landlock": 1,
    "bwrap": 2,
    "zygote": 3,
    "docker": 10,
    "podman": 10,
    "gvisor": 11,
}
# Those with walls, the strongest first.
WALLED = tuple(sorted((tier for tier in STRENGTH if tier != "none"), key=lambda tier: -STRENGTH[tier]))


class SandboxError(Exception):
    """Something about the sandbox itself, never about the code in it."""


class WorkerGone(SandboxError):
    """The worker died before it took the order: another one may have it."""


OURS = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)  # what this process or machine is out of


@contextmanager
def starting(what: str) -> Iterator[None]:
    """An OSError in here, which is this process's own, becomes a SandboxError that says what to do."""
    try:
        yield
    except OSError as error:
        cure = " (this process has no descriptors left: raise `ulimit -n`, or lower `running`)"
        raise SandboxError(f"{what} could not be started: {error}{cure * (error.errno == errno.EMFILE)}") from error


class TierUnavailable(SandboxError):
    """This machine does not allow the isolation that was asked for. The text says what was tried and what failed."""


class SessionLost(SandboxError):
    """The session's process is gone, and its state with it. `result` is how it ended."""

    def __init__(self, text: str, result: RunResult | None = None) -> None:
        super().__init__(text)
        self.result = result


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a program ended. Times in seconds, sizes in bytes.

    `status`: `ok` ended by itself with exit code 0; `error` with another one; `timeout` wall or processor time;
    `memory`; `output_limit`; `signal` died of one, such as a segmentation fault; `infra_error` the sandbox failed,
    which says nothing about the program and must never be scored. `stdout` and `stderr` are decoded as UTF-8 with
    U+FFFD for what is not; `truncated` if either is not whole. `cpu_s` sums over all processes, `max_rss` is of the
    largest one. `files`: the collected ones that there were, as bytes. `error`: a sentence for people, empty for
    `ok`.
    """

    status: Status
    exit_code: int | None = None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    max_rss: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    tier: str = ""
    backend: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a function returned. `value` counts only if `run.ok`, else it is None. `run` is how its process ended."""

    value: Any
    run: RunResult

    @property
    def ok(self) -> bool:
        return self.run.ok


@dataclass(frozen=True, slots=True)
class CellResult:
    """What one cell of a session came to. `error` is the name of the exception, or why the session is lost.

    `status`: `ok`, `error`, `timeout` (interrupted at its limit; the session goes on unless `lost`), `memory`,
    `output_limit`, `signal`, `infra_error`. All of it is the word of the code that ran, but for `lost` and what goes
    with it.
    """

    status: Status
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    wall_s: float = 0.0
    error: str = ""
    lost: bool = False
    tier: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What one command of a shell came to. Times in seconds.

    `status`: `ok` for exit code 0, `error` for another, `timeout` if it was killed at its limit; else why the session
    was lost, as of CellResult. `stdout`: both streams, as they were written; of more than was to be kept the head and
    the tail, and `cut` counts the bytes between them. `shell_lost`: the shell ended with this command; files stay, the
    folder and variables are those of a new shell with the next. `lost`: the session has ended, and there is no next.
    """

    status: Status
    exit_code: int | None = None
    stdout: str = ""
    cut: int = 0
    wall_s: float = 0.0
    error: str = ""
    shell_lost: bool = False
    lost: bool = False
    tier: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"
