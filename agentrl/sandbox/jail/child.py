"""From a fork of the worker to running code: descriptors, walls, files, then the program. Never returns."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, NoReturn

from .cells import answer_call, serve_cells
from .order import BROKEN, READY, Order, decode_payload
from .program import run_command, run_program
from .walls import Walls

SPARE = 3  # where a session's or a call's own descriptor stands


def become(order: Order, descriptors: list[int], walls: Walls) -> NoReturn:
    """`descriptors`: as `order.DESCRIPTORS` names them, then perhaps one for cells or a call's answer."""
    channel = socket.socket(fileno=descriptors[0])
    channel.setblocking(True)
    try:
        spare = _stand(descriptors)
        head, files = decode_payload(_read_all(descriptors[4]))
        folder = walls.enclose(order)
        _write_files(folder, files)
        shown = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY)] if order.show_folder else []
        sys.path.insert(0, folder)
        _fresh_randomness()
        walls.shut()
        socket.send_fds(channel, [READY], shown)
    except BaseException as error:
        channel.send(BROKEN + f"{type(error).__name__}: {error}".encode()[:2000])
        os._exit(1)
    channel.detach()
    if spare is not None:
        os.dup2(spare, SPARE, inheritable=False)
    os.closerange(SPARE + (spare is not None), 1 << 20)
    if order.mode == "cells":
        serve_cells(SPARE)
    if order.mode == "call":
        answer_call(SPARE, head)
    if "command" in head:
        run_command(head["command"])
    run_program(head)


def _stand(descriptors: list[int]) -> int | None:
    """Puts the three standard streams into place. Returns the descriptor beyond the named ones, if there is one."""
    os.setsid()
    for target, fd in enumerate(descriptors[1:4]):
        os.dup2(fd, target)
    return descriptors[5] if len(descriptors) > 5 else None


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts, at = [], 0
    while at < size and (part := os.pread(fd, size - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _write_files(folder: str, files: dict[str, bytes]) -> None:
    """The folder is new and nobody else's, so plain paths are safe; the pool has checked the names."""
    os.chdir(folder)
    for name, content in files.items():
        if parent := os.path.dirname(name):
            os.makedirs(parent, exist_ok=True)
        with open(name, "wb") as file:
            file.write(content)


def _fresh_randomness() -> None:
    """Python's own generator is seeded anew at each fork; numpy's is not."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))
