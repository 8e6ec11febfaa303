"""From a fork of the worker to running code: descriptors, walls, files, then the program. Never returns."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .branch import fresh_randomness
from .cells import answer_call, serve_cells
from .order import BROKEN, FOLDER, READY, Order, decode_payload
from .program import run_command, run_program
from .walls import Birth, Enclosure, limit_descriptors

SPARE = 3  # where a session's or a call's own descriptor stands


def forked(order: Order, descriptors: list[int], walls: Enclosure, live: Callable[[], NoReturn] | None = None) -> Birth:
    """`Walls.start` by a fork of this process. `live`: what the new one does instead of becoming the run."""
    pid = walls.fork()
    if pid == 0:
        live() if live else become(order, descriptors, walls, _stand)
    return Birth(pid)


def become(
    order: Order, descriptors: list[int], walls: Enclosure, stand: Callable[[list[int]], int | None]
) -> NoReturn:
    """`descriptors`: as `order.DESCRIPTORS` names them, then perhaps one for cells or a call's answer, which `stand`
    returns when it has put the standard streams into place.
    """
    channel = socket.socket(fileno=descriptors[0])
    channel.setblocking(True)
    try:
        spare = stand(descriptors)
        head, files = decode_payload(_read_all(descriptors[4]))
        folder = walls.enclose(order)
        unwritten = _write_files(folder, files, order.disk_bytes)
        if order.show_folder:  # before the last wall, which may let no descriptor through
            socket.send_fds(channel, [FOLDER], [os.open(folder, os.O_RDONLY | os.O_DIRECTORY)])
        sys.path.insert(0, folder)
        fresh_randomness()
        walls.shut()
        channel.send(READY)
    except BaseException as error:
        channel.send(BROKEN + f"{type(error).__name__}: {error}".encode()[:2000])
        os._exit(1)
    channel.detach()
    if spare is not None:
        os.dup2(spare, SPARE, inheritable=False)
    os.closerange(SPARE + (spare is not None), 1 << 20)
    try:
        limit_descriptors(order)
        if unwritten:
            os.write(2, f"the files could not be written: {unwritten}\n".encode(errors="replace"))
        else:
            _live(order, head)
    finally:
        os._exit(1)  # whatever the code has made of the functions that should have ended this process before


def _live(order: Order, head: dict[str, Any]) -> None:
    if order.mode == "cells":
        serve_cells(SPARE)
    elif order.mode == "call":
        answer_call(SPARE, head)
    elif "command" in head:
        run_command(head["command"])
    else:
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


def _write_files(folder: str, files: dict[str, bytes], most: int) -> str:
    """The folder is new and nobody else's, so plain paths are safe; the pool has checked the names.

    Returns what went wrong: too much for the folder, or names that exclude each other, which is no fault of the
    sandbox.
    """
    os.chdir(folder)
    if (size := sum(map(len, files.values()))) > most:  # said before anybody looks at what is on disk
        return f"they are {size} bytes, and the run may have {most} on disk"
    try:
        for name, content in files.items():
            if parent := os.path.dirname(name):
                os.makedirs(parent, exist_ok=True)
            with open(name, "wb") as file:
                file.write(content)
    except OSError as error:
        return str(error)
    return ""
