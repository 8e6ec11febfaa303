"""A worker's start: enters its walls, loads what runs should find loaded, then serves.

Started as `python -I -c START <control descriptor>`; the first message on that socket is JSON: `tier`, `preload`
(names of modules), `warm` (a program that is run once, to load what modules load late) and `base` (a folder, where
runs need one on disk). It answers `{"features": ...}` or `{"error": ...}`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from . import namespaces, seccomp
from .alone import Alone
from .bubblewrap import Bubblewrap
from .guest import Guest
from .keeper import keep
from .namespaces import Namespaces
from .none import NoWalls
from .server import Server
from .walls import Walls, set_common_limits

_EARLY = ("encodings.ascii", "encodings.latin_1", "encodings.utf_16", "encodings.idna", "locale", "random", "warnings")
_PYTHONS_OWN = {signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ}  # which Python handles or ignores by itself


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    config = json.loads(control.recv(1 << 20))
    try:
        if not seccomp.supported():
            raise OSError("the filter of system calls does not know this machine's architecture")
        if config["tier"] == "zygote":
            namespaces.enter(lambda alive: _work(control, config, Namespaces(keep), alive))
        if config["tier"] == "bwrap":  # where nothing is forked from this process that could find them loaded
            walls = Bubblewrap(config["base"], config["preload"], config["warm"])
            _work(control, {**config, "preload": [], "warm": ""}, walls, None)
        kinds: dict[str, Callable[[str], Walls]] = {"none": NoWalls, "guest": Guest, "landlock": Alone}
        _work(control, config, kinds[config["tier"]](config["base"]), None)
    except OSError as error:
        _say(control, {"error": str(error)})
        raise SystemExit(1) from None


def _work(control: socket.socket, config: dict[str, Any], walls: Walls, alive: int | None) -> NoReturn:
    try:
        for name in _EARLY:
            importlib.import_module(name)
        walls.prepare()
        set_common_limits()
        _load(config["preload"], config["warm"])
    except BaseException as error:
        _say(control, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    _say(control, {"features": walls.features, "pid": os.getpid(), "threads": threading.active_count()})
    with suppress(BaseException):
        Server(control, walls, alive).serve()
    os._exit(0)


def _load(preload: list[str], warm: str) -> None:
    """After the walls, so that nothing of the machine is read that a run could not read."""
    os.umask(0o077)
    os.chdir("/")
    for number in signal.valid_signals() - _PYTHONS_OWN - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # whatever the caller ignores, a run starts as any program does
    for name in preload:
        importlib.import_module(name)
    if warm:
        exec(compile(warm, "<warm>", "exec"), {"__name__": "warm"})
    if (tasks := len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1) > 1:
        raise RuntimeError(f"preloading started {tasks - 1} threads, which a fork would lose: set their number to one")
    random.seed()
    gc.collect()
    gc.freeze()  # so that collections in the runs do not touch, and copy, these pages


def _say(control: socket.socket, words: dict[str, Any]) -> None:
    with suppress(OSError):
        control.send(json.dumps(words).encode())
