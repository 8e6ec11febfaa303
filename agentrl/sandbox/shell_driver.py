"""Drives a shell from inside the jail. Its text is run in a session (`shell.py`); it is not imported there.

What comes in: a command line, seconds and bytes. What goes out, as JSON on standard output: what the command wrote, and
how it ended. Nothing here is trusted by anybody outside: what the code in the session does to it, it does to itself.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time

_STATUS = 9  # the descriptor on which the shell says that a command has ended, and how
_CHUNK = 1 << 16
_SUBREAPER = 36


class Shell:
    """One bash. Commands see neither its input nor the status descriptor."""

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)  # what leaves the shell can be found again
        self.status, told = os.pipe()
        os.dup2(told, _STATUS)
        os.close(told)
        path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
        program = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
        options = ["--noprofile", "--norc"] if program == "/bin/bash" else []
        self.process = subprocess.Popen(
            [program, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
            pass_fds=[_STATUS], start_new_session=True, env={**os.environ, "PATH": path, "TERM": "dumb"},
        )  # fmt: skip
        os.close(_STATUS)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        os.set_blocking(self.output.fileno(), False)
        self.heard = [self.output.fileno(), self.status]

    def command(self, text: str, wall_s: float, kept: Kept) -> str:
        """Runs it and returns how it ended: an exit code, "late" or "gone"."""
        line = f"eval {shlex.quote(text)} </dev/null {_STATUS}>&-\nprintf '%d\\n' $? >&{_STATUS}\n"
        ends = time.monotonic() + wall_s
        pending = memoryview(line.encode("utf-8", "surrogateescape"))
        os.set_blocking(self.input.fileno(), False)
        while (left := ends - time.monotonic()) > 0:
            writes = [self.input.fileno()] if pending else []
            reads, ready, _ = select.select(self.heard, writes, [], left)
            if ready:
                try:
                    pending = pending[os.write(self.input.fileno(), pending[:_CHUNK]) :]
                except BrokenPipeError:
                    pending = pending[:0]
            if self.output.fileno() in reads:
                self.read(kept)
            if self.status in reads:
                said = os.read(self.status, 64)
                self.read(kept)
                return said.decode().strip() or "gone"
        return "late"

    def read(self, kept: Kept) -> None:
        """What is there now, a pipe's fill at most."""
        for _ in range(16):
            try:
                part = os.read(self.output.fileno(), _CHUNK)
            except BlockingIOError:
                return
            if not part:  # the shell has closed its output, and goes on
                self.heard = [self.status]
                return
            kept.add(part)

    def end(self) -> int:
        """Kills it with all that it has started, and all else that this process has, and returns its exit code."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        _end_others()
        self.close()
        return code

    def close(self) -> None:
        for closing in (self.input, self.output):
            closing.close()
        os.close(self.status)


class Kept:
    """The head and the tail of many bytes."""

    def __init__(self, limit: int) -> None:
        self.tail_size = limit // 3
        self.head_size = limit - self.tail_size
        self.head, self.tail, self.cut = b"", b"", 0

    def add(self, part: bytes) -> None:
        room = self.head_size - len(self.head)
        self.head += part[:room]
        self.tail += part[room:] if room > 0 else part
        over = len(self.tail) - self.tail_size
        if over > 0:
            self.cut += over
            self.tail = self.tail[over:]

    def whole(self) -> bytes:
        note = f"\n[... {self.cut} bytes left out ...]\n".encode() if self.cut else b""
        return self.head + note + self.tail


def _end_others() -> None:
    """Kills all processes below this one, and takes note of their ends, or they count on as processes."""
    ends = time.monotonic() + 1.0
    with contextlib.suppress(ChildProcessError):  # there is none left
        while time.monotonic() < ends:
            for pid in _below(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)


def _below(top: int) -> list[int]:
    """Those that /proc shows; where there is none, those that a signal to everybody reaches."""
    parents = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{int(name)}/stat", "rb") as file:
            parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    if not parents:
        return [-1] if top == 1 else []
    found, last = {top}, 0
    while len(found) > last:
        last = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return sorted(found - {top})


_shells: list[Shell] = []


def _forget() -> None:
    """In a fork of the session: the shell is the other one's."""
    while _shells:
        _shells.pop().close()


os.register_at_fork(after_in_child=_forget)


def run(command: str, wall_s: float, max_bytes: int) -> None:
    """Prints `{"how": "exit" | "late" | "gone", "code": ..., "out": Base64, "cut": bytes}`."""
    if not _shells:
        _shells.append(Shell())
    kept = Kept(max_bytes)
    try:
        how = _shells[0].command(command, wall_s, kept)
    except BaseException:
        _shells.pop().end()
        raise
    code: int | None = None
    if how in ("late", "gone"):
        code = _shells.pop().end()
    else:
        how, code = "exit", int(how)
    out = base64.b64encode(kept.whole()).decode()
    print(json.dumps({"how": how, "code": code, "out": out, "cut": kept.cut}))
