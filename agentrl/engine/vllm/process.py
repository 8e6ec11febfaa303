"""The processes behind a vLLM engine: how they start, die with their parent, and are seen to be gone.

vLLM samples in child processes (an engine core and its workers). What comes in: the moment of starting and of
stopping. What goes out: children that ignore the terminal's Ctrl-C (the parent stops them in order), that write to a
log file instead of the terminal, and that end when their parent dies, even by SIGKILL. Knows nothing of tokens or
weights, and does not import vLLM.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil  # type: ignore[import-untyped]

PARENT_POLL_S = 0.5
KILL_WAIT_S = 10.0
GIVE_UP_S = 60.0
EAGER = {"TORCHDYNAMO_DISABLE": "1"}  # of the children; else the first request waits 15 s for a compiled helper
QUIET = {  # on the terminal and on the network
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
_ERROR_LINE = re.compile(r"\b([A-Za-z_.]*(?:Error|Exception)): (\S.*)")


class ChildSetup(dict[str, Any]):
    """Rides in vLLM's `additional_config`: a child that unpickles its configuration sets itself up.

    It is an empty dictionary to vLLM. Pickled by a parent and unpickled by its child, it starts the child's watch on
    the parent and sends the child's standard output and error to `log` (None: they stay where they are).
    """

    def __init__(self, log: Path | None) -> None:
        super().__init__()
        self._log = log

    def __reduce__(self) -> tuple[Any, ...]:
        return _set_up, (self._log, os.getpid())

    def __deepcopy__(self, memo: Any) -> ChildSetup:
        return self

    def __copy__(self) -> ChildSetup:
        return self


def _set_up(log: Path | None, parent_pid: int) -> ChildSetup:
    if os.getpid() != parent_pid:
        threading.Thread(target=_die_with, args=(parent_pid,), daemon=True, name="die-with-parent").start()
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.close(descriptor)
    return ChildSetup(log)


def _die_with(parent_pid: int) -> None:
    """End this process soon after its parent has ended: then the kernel gives it another parent."""
    while os.getppid() == parent_pid:
        time.sleep(PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes started inside, by this thread, never receive SIGINT: a child inherits the thread's signal mask."""
    resource_tracker.ensure_running()  # else the first process started would start it, and that opens the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that the user has not set; take them back at the end."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def engine_cores(known: Collection[int] = ()) -> list[int]:
    """Process ids of this process's living vLLM engine cores, but for the `known` ones."""
    children = multiprocessing.active_children()
    return [c.pid for c in children if c.name.startswith("EngineCore") and c.pid is not None and c.pid not in known]


def with_descendants(pids: Iterable[int]) -> list[psutil.Process]:
    """The processes and everything below them. Those already gone are left out."""
    import psutil  # comes with vLLM

    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL what still lives, and wait until it is gone (at most `KILL_WAIT_S`)."""
    import psutil

    living = [process for process in processes if process.is_running()]
    for process in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(living, timeout=KILL_WAIT_S)


async def launched(build: Callable[[], Any], known: Collection[int]) -> Any:
    """Run `build`, which starts an engine core and waits for it, in a thread.

    When it fails or is cancelled, what it has started is killed until the thread gives up: an engine that comes up all
    the same is shut down.
    """
    building = asyncio.get_running_loop().run_in_executor(None, build)
    try:
        return await asyncio.shield(building)
    except BaseException:
        await asyncio.shield(_given_up(building, known))
        raise


async def _given_up(building: asyncio.Future[Any], known: Collection[int]) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + GIVE_UP_S
    while not building.done() and loop.time() < end:
        kill(with_descendants(engine_cores(known)))
        await asyncio.wait([building], timeout=0.1)
    if building.done() and building.exception() is None:
        await asyncio.to_thread(building.result().shutdown)
    kill(with_descendants(engine_cores(known)))


def new_log() -> Path:
    """An empty file that this user alone can read."""
    handle, name = tempfile.mkstemp(prefix="agentrl-vllm-", suffix=".log")
    os.close(handle)
    return Path(name)


def root_cause(log: Path) -> str:
    """The first error that a log names, in one line: what failed in a child before anything failed because of it."""
    with contextlib.suppress(OSError):
        for line in log.read_text(errors="replace").splitlines():
            if match := _ERROR_LINE.search(line):
                return f"{match[1]}: {match[2]}"
    return ""
