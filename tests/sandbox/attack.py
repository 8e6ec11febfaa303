"""Hostile programs and what must come of them: reads them, runs them in a pool, and says what went wrong.

A program's first line is `# EXPECT: {json}`; the folder's README says what the keys mean.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agentrl.sandbox import Limits, RunResult, SandboxPool, same_value
from tests.processes import children, left_since

REPOSITORY = Path(__file__).resolve().parents[2]
GIVEN = Path(os.environ.get("AGENTRL_ATTACKS") or REPOSITORY.parent / "shared" / "attacks")
CANARY = Path("/tmp/sbx-canary")
IN_MEMORY = "canary-expected-" + str(5521)
LIMITS = Limits(
    wall_s=10, cpu_s=2, address_bytes=512 << 20, memory_bytes=1000 << 20, disk_bytes=64 << 20, processes=64,
    output_bytes=1 << 20,
)  # fmt: skip
CASES = {"sum_of_squares": [([1, 2, 3], 14), ([4, -5, 6], 77), ([10], 100)]}
STDOUT = {"squares_1_to_5": ["1", "4", "9", "16", "25"]}


_RUNS_USERS = (1_879_000_000, 64_999)  # if root starts the pool

ENDS = ["ok", "error", "memory", "signal", "timeout", "output_limit"]


@dataclass(frozen=True)
class Attack:
    name: str
    code: str
    expect: dict[str, Any]


THIS_KERNEL = ["zygote", "landlock", "bwrap", "none"]  # walls before the machine's own; gVisor spends its own memory


def hostile(name: str, code: str, **expect: Any) -> Attack:
    """One of our own. Unless said otherwise it may end as it likes, but not by the sandbox's failure."""
    return Attack(name, textwrap.dedent(code).lstrip(), {"kind": "run", "status": ENDS, **expect})


def candidate(name: str, code: str, *, reward: int = 0) -> Attack:
    """One of our own that is to be graded."""
    return hostile(name, code, kind="grade", task="sum_of_squares", reward=reward)


def read(folder: Path) -> list[Attack]:
    found = []
    for path in sorted(folder.glob("*.py")):
        code = path.read_text()
        head = code.partition("\n")[0]
        found.append(Attack(path.stem, code, json.loads(head.removeprefix("# EXPECT: "))))
    return found


@contextmanager
def canaries() -> Iterator[None]:
    """What a program that gets out could find: a file, a variable, servers on the network and on unix sockets."""
    shutil.rmtree(CANARY, ignore_errors=True)
    CANARY.mkdir(mode=0o777)
    (CANARY / "secret.txt").write_text("canary-file-91bc")
    os.environ["SBX_CANARY_ENV"] = "canary-env-7f3a"
    servers = []
    for family, kind, address, word in (
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 18765), b"canary-tcp"),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 18766), b"canary-udp"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "\0sbx-canary", b"canary-abs"),
        (socket.AF_UNIX, socket.SOCK_STREAM, str(CANARY / "sock"), b"canary-unix"),
    ):
        server = socket.socket(family, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        if kind == socket.SOCK_STREAM:
            server.listen()
        threading.Thread(target=_answer, args=(server, kind, word), daemon=True).start()
        servers.append(server)
    (CANARY / "sock").chmod(0o777)
    try:
        yield
    finally:
        for server in servers:
            server.shutdown(socket.SHUT_RDWR) if server.type == socket.SOCK_STREAM else None
            server.close()
        del os.environ["SBX_CANARY_ENV"]
        shutil.rmtree(CANARY, ignore_errors=True)


def _answer(server: socket.socket, kind: int, word: bytes) -> None:
    try:
        while True:
            if kind == socket.SOCK_STREAM:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(word)
            else:
                _, address = server.recvfrom(100)
                server.sendto(word, address)
    except OSError:
        return


async def reward(pool: SandboxPool, attack: Attack) -> int:
    if attack.expect["kind"] == "grade_stdout":
        result = await pool.run(attack.code)
        return int(result.ok and result.stdout.split() == STDOUT[attack.expect["task"]])
    for xs, wanted in CASES[attack.expect["task"]]:
        answer = await pool.call(attack.code, "solve", [xs])
        if not (answer.ok and same_value(answer.value, wanted)):
            return 0
    return 1


async def complaints(pool: SandboxPool, attack: Attack) -> list[str]:
    """What came of it that must not have."""
    expect = attack.expect
    keep = IN_MEMORY  # the string itself stands in this process's memory
    before, before_it = children(), held(pool)
    rss = psutil.Process().memory_info().rss
    wrong = []
    if expect["kind"] == "run":
        results = []
        for _ in range(expect.get("repeat", 1)):
            results.append(await pool.run(attack.code, collect_files=expect.get("collect", ())))
            wrong += _of_run(results[-1], expect)
        if expect.get("outputs_differ") and len({each.stdout for each in results}) == 1:
            wrong.append(f"both outputs are {results[0].stdout!r}")
    elif (got := await reward(pool, attack)) != expect["reward"]:
        wrong.append(f"reward {got}")
    if running := [each for each in left_since(before) if not kept_by_gvisor(pool, each)]:
        wrong.append(f"left over: {running}")
    if (grown := (psutil.Process().memory_info().rss - rss) >> 20) > expect.get("supervisor_rss_mb", 300):
        wrong.append(f"this process grew by {grown} MB")
    wrong += _on_the_machine(expect)
    if not (alive := await pool.run("print('alive')", limits=LIMITS)).ok:
        wrong.append(f"the pool is broken afterwards: {alive}")
    wrong += await left(pool, before_it)
    return wrong if keep else []


def kept_by_gvisor(pool: SandboxPool, process: psutil.Process) -> bool:
    """Its kernel keeps processes of the machine to run others in: those have nothing of a run, and are held stopped."""
    with suppress(psutil.NoSuchProcess):
        return pool.tier == "gvisor" and process.status() == psutil.STATUS_TRACING_STOP
    return True


def _of_run(result: RunResult, expect: dict[str, Any]) -> list[str]:
    written = result.stdout + result.stderr
    wrong = [f"wrote {word!r}" for word in expect.get("no_stdout", ()) if word in written]
    wrong += ["wrote ESCAPED"] if "ESCAPED" in result.stdout else []
    wrong += [f"did not write {word!r}" for word in expect.get("stdout_contains", ()) if word not in written]
    if result.status not in expect["status"]:
        wrong.append(f"status {result.status} ({result.error})")
    if expect.get("exit_code", result.exit_code) != result.exit_code:
        wrong.append(f"exit code {result.exit_code}")
    if result.wall_s > expect.get("max_wall", LIMITS.wall_s + 1) + 20:  # it is stopped, and a busy machine is late
        wrong.append(f"{result.wall_s} s")
    if len(result.stdout) > expect.get("max_stdout", LIMITS.output_bytes):
        wrong.append(f"{len(result.stdout)} bytes of stdout")
    if result.max_rss >> 20 > expect.get("max_rss_mb", 1200):
        wrong.append(f"{result.max_rss >> 20} MB")
    for word in expect.get("collect_must_not_contain", ()):
        wrong += [
            f"collected {name} with {word!r}" for name, content in result.files.items() if word.encode() in content
        ]
    return [f"{each}; stdout {result.stdout[:300]!r}, stderr {result.stderr[-300:]!r}" for each in wrong]


def _on_the_machine(expect: dict[str, Any]) -> list[str]:
    return [f"{path} exists" for path in expect.get("host_absent", ()) if os.path.lexists(path)]


async def left(pool: SandboxPool, before: dict[str, set[str]], within: float = 10) -> list[str]:
    """What there is more than was `held` before. A worker clears up after it has said how a run ended."""
    limit = time.monotonic() + within
    while True:
        more = {kind: more for kind, names in held(pool).items() if (more := names - before.get(kind, set()))}
        if not more or time.monotonic() > limit:
            return [f"left over, {kind}: {sorted(names)}" for kind, names in more.items()]
        await asyncio.sleep(0.02)


def held(pool: SandboxPool) -> dict[str, set[str]]:
    """Descriptors of this process and of the workers by their numbers, IPC objects, files where a run's could be.

    Not of a gVisor: its kernel holds those of all that it runs, and gives them back when it likes.
    """
    servers = {worker.pid for worker in pool.workers if pool.tier != "gvisor"}
    if pool.tier == "zygote":
        servers |= {child.pid for pid in list(servers) for child in psutil.Process(pid).children()}
    found = {f"descriptors of {pid}": _descriptors(pid) for pid in sorted({os.getpid(), *servers})}
    tables = [Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:] for kind in ("shm", "sem", "msg")]
    return {
        **found,
        "IPC objects": {line.split()[1] for table in tables for line in table},
        "files": set(_files_of_runs()),
    }


def _descriptors(pid: int) -> set[str]:
    with suppress(FileNotFoundError):  # it has gone, and what it held with it
        return set(os.listdir(f"/proc/{pid}/fd"))
    return set()


def _files_of_runs() -> Iterator[str]:
    """Folders of runs, and in folders where anybody may write what belongs to a run's user or is named by attacks."""
    yield from map(str, Path(tempfile.gettempdir()).glob(f"sandbox-runner-{os.getpid()}-*/run-*"))
    for folder in {"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", tempfile.gettempdir(), os.path.dirname(os.__file__)}:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid in _RUNS_USERS or entry.name.startswith("left"):
                        yield entry.path
