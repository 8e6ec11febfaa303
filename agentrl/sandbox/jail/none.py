"""No walls: a process of its own in a folder of its own, with the kernel's plain limits. For code that is trusted,
and to show that an attack does something where nothing holds it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from .child import forked
from .crowd import Crowd
from .disk import exceeds
from .order import Order
from .processes import ProcessTable
from .removal import remove
from .walls import Birth, set_limits


class NoWalls:
    def __init__(self, base: str) -> None:
        """`base`: an absolute path of a folder that is the pool's own."""
        self.features: dict[str, object] = {}
        self.crowd: Crowd | None = None
        self._base = base
        self._table = (
            ProcessTable(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)) if os.path.isdir("/proc/self") else None
        )

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def start(self, order: Order, descriptors: list[int]) -> Birth:
        return forked(order, descriptors, self)

    def fork(self) -> int:
        return os.fork()

    def enclose(self, order: Order) -> str:
        folder = f"{self._base}/{order.name}"
        os.mkdir(folder, 0o700)
        set_limits(order)
        os.environ.update(HOME=folder, TMPDIR=folder)
        with open(f"{self._base}/{order.name}.group", "w") as file:
            file.write(str(os.getpid()))
        return folder

    def shut(self) -> None:
        """There is no filter."""

    def tidy(self, order: Order) -> None:
        """Ends the run's process group. What has left the group goes on: that is what having no walls means."""
        note = f"{self._base}/{order.name}.group"
        with suppress(OSError, ValueError), open(note) as file:
            os.killpg(int(file.read()), signal.SIGKILL)
        with suppress(OSError):
            os.unlink(note)
        remove(f"{self._base}/{order.name}")

    def unbegun(self, pid: int, watch: int) -> bool:
        return False

    def overfull(self, order: Order, pid: int) -> bool:
        return exceeds(f"{self._base}/{order.name}", order.disk_bytes, order.files)

    def leave(self) -> None:
        remove(self._base)

    def usage(self, runs: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        return self._table.usage(runs) if self._table else {}
