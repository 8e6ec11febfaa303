"""The verifier's processes, seen from their parent: one fork server and the workers that it forks.

What comes in: the wish for a worker, work for it, the wish that it ends. What goes out: sockets to wait on and the
messages that came over them. Knows nothing of queues, deadlines or answers. Used by one thread alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrl.errors import VerifierFailure

_SCRIPT = Path(__file__).with_name("worker.py")
_END_WAIT_S = 5.0
_SEND_WAIT_S = 5.0


@dataclass(eq=False)
class Line:
    """One end of a socket that carries JSON, a line each."""

    socket: socket.socket
    _rest: bytes = b""

    def read(self) -> list[dict[str, Any]] | None:
        """The whole messages that have come; None when the other end is closed."""
        try:
            data = self.socket.recv(65536)
        except (BlockingIOError, TimeoutError):
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def write(self, message: dict[str, Any], descriptor: int | None = None) -> bool:
        """False when the other end is closed or does not read."""
        data = json.dumps(message).encode() + b"\n"
        try:
            if descriptor is None:
                self.socket.sendall(data)
            else:
                socket.send_fds(self.socket, [data], [descriptor])
        except OSError:
            return False
        return True


@dataclass(eq=False)
class Worker:
    number: int
    line: Line
    pid: int | None = None  # until it has said who it is
    done: int = 0  # jobs

    def cpu_s(self) -> float | None:
        """CPU time used so far, or None where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(eq=False)
class Crew:
    """A fork server and its workers.

    Args:
        memory_mb: Address space of a worker, MiB.
        cpu_s: CPU time that a worker may use for one job before the kernel ends it.
    """

    memory_mb: int
    cpu_s: float
    workers: list[Worker] = field(default_factory=list)
    control: Line | None = None
    _process: subprocess.Popen[bytes] | None = None
    _ready: bool = False
    _numbered: int = 0

    def start(self) -> Line:
        """Start the fork server; it says on the line when it is warm, after a second or two."""
        ours, theirs = _pair()
        path = [entry or os.getcwd() for entry in sys.path]
        settings = {"path": path, "parent": os.getpid(), "memory_mb": self.memory_mb, "cpu_s": self.cpu_s}
        command = [sys.executable, "-P", str(_SCRIPT), str(theirs.fileno()), json.dumps(settings)]
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # the terminal's Ctrl-C is the parent's
            )
        except OSError as error:
            ours.close()
            raise VerifierFailure(f"cannot start the checking processes: {error}") from error
        finally:
            theirs.close()
        self._ready = False
        self.control = Line(ours)
        return self.control

    def warm(self) -> None:
        """The fork server has said that it is ready."""
        self._ready = True

    def hire(self) -> Worker | None:
        """Ask for one more worker; None when the fork server is gone."""
        assert self.control is not None
        ours, theirs = _pair()
        self._numbered += 1
        sent = self.control.write({"spawn": self._numbered}, theirs.fileno())
        theirs.close()
        worker = Worker(self._numbered, Line(ours))
        if not sent:
            ours.close()
            return None
        self.workers.append(worker)
        return worker

    def dismiss(self, worker: Worker, *, kill: bool) -> None:
        """Let a worker end: at once with all that it started, or by itself when it is idle."""
        self.workers.remove(worker)
        worker.line.socket.close()
        if kill and self.control is not None:
            self.control.write({"kill": worker.number})

    def stop(self) -> None:
        """End all processes and wait until they have ended."""
        for worker in self.workers:
            worker.line.socket.close()
        self.workers.clear()
        if self.control is not None:
            self.control.socket.close()
            self.control = None
        if self._process is None:
            return
        if not self._ready:
            self._process.kill()  # it would go on loading for seconds; it has no workers yet
        try:
            self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def abandon(self) -> None:
        """In a forked child: close what was inherited, so that the parent's death can be seen; touch no process."""
        for line in (self.control, *(worker.line for worker in self.workers)):
            if line is not None:
                with contextlib.suppress(OSError):
                    line.socket.close()
        if self._process is not None:
            self._process.returncode = 0  # not this process's child


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(_SEND_WAIT_S)
    return ours, theirs
