"""The order for one run, as it travels from the pool to a worker: limits and what to do. Both sides know it."""

from __future__ import annotations

import json
import marshal
from dataclasses import asdict, dataclass
from typing import Any, Literal

# File descriptors that travel with an order, in this sequence.
DESCRIPTORS = ("channel", "stdin", "stdout", "stderr", "payload")

# First byte of a message on a run's channel.
# To the pool: a descriptor of the run's folder; walls are up; walls failed, with the reason; ended, with the facts.
FOLDER, READY, BROKEN, DONE = b"O", b"R", b"F", b"D"
KILL, INTERRUPT, MARK = b"K", b"I", b"M"  # to the worker: end the run, with the reason; press control-C; a cell begins

_FORMAT = 4  # of marshal: what every Python since 3.4 reads; in a container it may be another than here

# A keeper keeps a session and its forks: it takes orders for `cells` and `branch` on the descriptor beyond DESCRIPTORS.
Mode = Literal["program", "cells", "call", "keeper", "branch"]


@dataclass(frozen=True)
class Order:
    """Times in seconds, sizes in bytes. `wall_s` 0: no limit of its own (the pool times each cell of a session)."""

    mode: Mode
    wall_s: float
    cpu_s: float
    address_bytes: int
    memory_bytes: int
    processes: int
    disk_bytes: int
    files: int
    open_files: int
    show_folder: bool  # hand the run's folder to the pool, to collect files from
    name: str = ""  # of the run's own folder where there are no namespaces
    source: str = ""  # the name of the session that a branch is forked from

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Order:
        return cls(**json.loads(data))


@dataclass(frozen=True)
class Ending:
    """How a run's first process ended, as its worker saw it. `killed`: why the worker ended it, empty if it did not."""

    exit_code: int | None
    signal: int | None
    killed: str
    wall_s: float
    cpu_s: float
    max_rss: int  # bytes, of the largest process
    peak_memory: int  # bytes, of the whole run, as far as it was watched
    waited_s: float = 0.0  # for a processor that others had, if that is why it met its wall limit (killed "crowded")

    def encode(self) -> bytes:
        return DONE + json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Ending:
        return cls(**json.loads(data[1:]))


def encode_payload(head: dict[str, Any], files: dict[str, bytes]) -> bytes:
    """What the run itself gets: the program and what belongs to it, and the files of its folder.

    `head` holds plain values only. This goes from the pool to a run, and nothing ever comes back this way.
    """
    return marshal.dumps((head, files), _FORMAT)


def decode_payload(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """This touches the fewest pages that a fork shares with its worker."""
    payload: tuple[dict[str, Any], dict[str, bytes]] = marshal.loads(data)
    return payload
