"""What the processes of runs use, read from /proc. Knows no limits.

Pages that processes share are to be counted once: where the plain sum of what is resident looks large, the kernel's
proportional figure is read instead, which is exact and costs more.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_LOOK_CLOSER = 64 << 20  # bytes


class ProcessTable:
    def __init__(self, proc: str) -> None:
        self._proc = proc

    def usage(self, roots: list[int]) -> dict[int, tuple[int, float]]:
        """(bytes, seconds of processor time) of each root with all its descendants."""
        parents, cpu = self._all()
        children = defaultdict(list)
        for pid, parent in parents.items():
            children[parent].append(pid)
        return {root: self._sum(root, children, cpu) for root in roots if root in parents}

    def _sum(self, root: int, children: dict[int, list[int]], cpu: dict[int, float]) -> tuple[int, float]:
        members, queue = [], [root]
        while queue:
            members.append(pid := queue.pop())
            queue += children.get(pid, ())
        memory = sum(map(self._resident, members))
        if memory > _LOOK_CLOSER:
            memory = sum(map(self._proportional_memory, members))
        return memory, sum(cpu[pid] for pid in members)

    def _all(self) -> tuple[dict[int, int], dict[int, float]]:
        """Parent and processor time of every process, with the time of the children that it has waited for."""
        parents, cpu = {}, {}
        for name in os.listdir(self._proc):
            if name.isdigit() and (text := self._read(f"{name}/stat")):
                fields = text.rpartition(b")")[2].split()
                parents[int(name)] = int(fields[1])
                cpu[int(name)] = sum(map(int, fields[11:15])) / _TICK
        return parents, cpu

    def _resident(self, pid: int) -> int:
        fields = self._read(f"{pid}/statm").split()
        return int(fields[1]) * _PAGE if fields else 0

    def _proportional_memory(self, pid: int) -> int:
        for line in self._read(f"{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
        return self._resident(pid)

    def _read(self, name: str) -> bytes:
        with suppress(OSError), open(f"{self._proc}/{name}", "rb", buffering=0) as file:
            return file.read(1 << 16)
        return b""
