"""The processes behind the verifier: a fork server with math-verify loaded and warm, and the workers it forks.

Run as a script, with one end of a socket and settings as its arguments; standard library and math-verify alone, nothing
of agentrl. What comes in, a line of JSON each: `{"spawn": N}` with a descriptor riding along, `{"kill": N}`. What goes
out: `{"ready": true}`, or `{"missing": text}` without math-verify, or `{"failed": text}`. A worker reads
`{"gold", "answer"}` from its descriptor and answers with `{"phase": "answer"}` when the gold answer is read, then with
`{"verdict", "reason", "rss_mb"}`.

A fork costs 5 ms where a fresh start costs seconds, so a killed worker is replaced at once. Who dies with whom: the
fork server with its parent (end of file, and PR_SET_PDEATHSIG on Linux), a worker with the fork server in the same way;
a worker that computes also has a limit on its CPU time. Each worker leads a process group, which is killed as a whole;
what has left the group becomes the fork server's child, and is killed as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WARM = (  # one of each kind: what is only imported is slow at first use
    ("24", "24.0"),
    ("\\frac{3}{4}", "0.75"),
    ("\\{1,2\\}", "\\{2,1\\}"),
    ("[1,2)", "(1,2)"),
    ("x^2+2x+1", "(x+1)^2"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&5\\end{pmatrix}"),
    ("x=5", "5"),
    ("3\\sqrt{2}\\pi", "\\sqrt{18}\\pi"),
    ("50\\%", "\\frac12"),
    ("(-\\infty,3]\\cup[4,5)", "x<3"),
)
_CPU_SLACK_S = 2
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    sys.path[:] = settings["path"]
    _die_with_parent(settings["parent"])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # the parent stops its workers in order
    try:
        _warm_up()
    except Exception as error:
        kind = "missing" if isinstance(error, ImportError) else "failed"
        control.sendall(json.dumps({kind: f"{type(error).__name__}: {error}"}).encode() + b"\n")
        return
    gc.collect()
    gc.freeze()
    control.sendall(b'{"ready": true}\n')
    _serve(control, settings)


def _serve(control: socket.socket, settings: dict[str, Any]) -> None:
    """Fork and kill as told, until the parent's end of the socket closes."""
    waker, woken = socket.socketpair()
    for end in (waker, woken):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    workers: dict[int, int] = {}  # number -> process id
    lines, descriptors = b"", list[int]()
    while True:
        readable, _, _ = select.select([control, waker], [], [])
        if waker in readable:
            with contextlib.suppress(BlockingIOError):
                waker.recv(4096)
            _reap(workers)
        if control not in readable:
            continue
        data, fds, _, _ = socket.recv_fds(control, 65536, 64)
        descriptors += fds
        lines += data
        if not data:
            break
        *whole, lines = lines.split(b"\n")
        for line in whole:
            order = json.loads(line)
            if "spawn" in order:
                workers[order["spawn"]] = _fork(descriptors.pop(0), (control, waker, woken), settings)
            elif order["kill"] in workers:
                _kill(workers[order["kill"]])
    for pid in workers.values():
        _kill(pid)
    for pid in workers.values():
        os.waitpid(pid, 0)
    _end_orphans(())


def _fork(descriptor: int, inherited: tuple[socket.socket, ...], settings: dict[str, Any]) -> int:
    server = os.getpid()
    if pid := os.fork():
        os.close(descriptor)
        with contextlib.suppress(OSError):  # both do it: neither may be first
            os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _die_with_parent(server)
        for end in inherited:
            end.close()
        _limit(settings["memory_mb"])
        _work(socket.socket(fileno=descriptor), settings)
        code = 0
    finally:
        os._exit(code)


def _reap(workers: dict[int, int]) -> None:
    for number, pid in list(workers.items()):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        del workers[number]
    _end_orphans(workers.values())


def _end_orphans(known: Iterable[int]) -> None:
    """End what a worker had started in a session of its own: when the worker ends, it becomes this process's child."""
    with contextlib.suppress(OSError):
        own = os.getpid()
        for pid in set(map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())) - set(known):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _kill(pid: int) -> None:
    """The worker and all that it started. It has not been waited for, so its number is still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _limit(memory_mb: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))


def _work(connection: socket.socket, settings: dict[str, Any]) -> None:
    connection.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    with connection.makefile("rb") as jobs:
        for line in jobs:
            _allow_cpu(settings["cpu_s"])
            job = json.loads(line)
            try:
                verdict, reason = _check(job["gold"], job["answer"], connection)
            except MemoryError:
                verdict, reason = "timeout", f"over the memory limit of {settings['memory_mb']} MiB"
            except RecursionError:
                verdict, reason = "unparsable", "nested too deeply"
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 1 << 20)
            reply = {"verdict": verdict, "reason": reason, "rss_mb": used}
            connection.sendall(json.dumps(reply).encode() + b"\n")


def _allow_cpu(seconds: float) -> None:
    """So much CPU time from now on: a worker whose parents are gone ends all the same."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + _CPU_SLACK_S
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _check(gold: str, answer: str, connection: socket.socket) -> tuple[str, str]:
    try:
        wanted = _parse(gold)
    except (MemoryError, RecursionError) as error:  # the task's fault, whatever the answer is
        return "gold", "it takes too much memory" if isinstance(error, MemoryError) else "it is nested too deeply"
    if not any(not isinstance(part, str) for part in wanted):
        return "gold", "math-verify cannot parse it"
    connection.sendall(b'{"phase": "answer"}\n')
    given = _parse(answer)
    if not any(not isinstance(part, str) for part in given):
        return "unparsable", "math-verify cannot parse it"
    if _equal(wanted, given):
        return "correct", "math-verify: equal"
    return "wrong", "math-verify: not equal"


def _parse(text: str) -> list[Any]:
    """What math-verify reads in a box of `text`: expressions, then the text itself."""
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    try:
        return list(parse(f"\\boxed{{{text}}}", config, parsing_timeout=None, raise_on_error=True))
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return []


def _equal(wanted: list[Any], given: list[Any]) -> bool:
    """math-verify's `verify`, but that a lack of memory is no difference."""
    from math_verify import verify

    for gold in wanted:
        for answer in given:
            try:
                if verify(gold, answer, timeout_seconds=None, raise_on_error=True):
                    return True
            except (MemoryError, RecursionError):
                raise
            except Exception:
                continue
    return False


def _warm_up() -> None:
    logging.disable(logging.CRITICAL)
    silent, _ = socket.socketpair()
    for gold, answer in WARM:
        _check(gold, answer, silent)


if __name__ == "__main__":
    main()
