"""Drives a shell from inside the jail. Its text is run in an episode's session; it is not imported there.

What comes in: a command line, seconds and characters. What goes out, on standard output: what the command wrote, and
how it ended. Nothing here is trusted by anybody outside: what the code in the session does to it, it does to itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import time

_STATUS = 9  # the descriptor on which the shell says that a command has ended, and how
_CHUNK = 1 << 16
_NEXT = "the next command begins a new one; files stay"


class Shell:
    """One bash. Commands see neither its input nor the status descriptor."""

    def __init__(self) -> None:
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
        """Kills it with all that it has started, as far as that is to be found, and returns its exit code."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        if os.getpid() == 1:  # of a process namespace: what else is there was begun here, too
            _end_others()
        for closing in (self.input, self.output):
            closing.close()
        os.close(self.status)
        return code


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

    def text(self) -> str:
        note = f"\n[... {self.cut} bytes left out ...]\n".encode() if self.cut else b""
        return (self.head + note + self.tail).decode("utf-8", "replace")


def _end_others() -> None:
    """Kills all other processes of the namespace, and takes note of their ends, or they count on as processes."""
    ends = time.monotonic() + 1.0
    with contextlib.suppress(OSError):  # there is none
        os.kill(-1, signal.SIGKILL)
        while time.monotonic() < ends:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)


_shells: list[Shell] = []


def run(command: str, wall_s: float, max_chars: int) -> None:
    if not _shells:
        _shells.append(Shell())
    kept = Kept(max_chars)
    try:
        how = _shells[0].command(command, wall_s, kept)
    except BaseException:
        _shells.pop().end()
        raise
    words = {"0": ""}.get(how, f"[exit code {how}]")
    if how == "late":
        words = (
            f"[it was killed after {wall_s:g} s, and the shell with it: the next command begins a new one; files stay]"
        )
        _shells.pop().end()
    elif how == "gone":
        code = _shells.pop().end()
        words = f"[the shell ended with exit code {code}: {_NEXT}]"
    text = kept.text()
    gap = "\n" if text and words and not text.endswith("\n") else ""
    print(text + gap + words, end="")
