"""What the processes of runs use, read from /proc. Knows no limits.

Pages that processes share are to be counted once: where the plain sum of what is resident looks large, the kernel's
proportional figure is read instead, which is exact and costs more.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_LOOK_CLOSER = 64 << 20  # bytes


class ProcessTable:
    """Reads the /proc whose folder `proc` is a descriptor of. It may count processes in an outer process namespace."""

    def __init__(self, proc: int) -> None:
        self._proc = proc

    def number_of(self, watch: int) -> int:
        """The number that this /proc gives to the process of a pidfd of ours; 0 or less if it has none."""
        for line in self._read(f"self/fdinfo/{watch}").splitlines():
            if line.startswith(b"Pid:"):
                return int(line.split()[1])
        return 0

    def usage(self, roots: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        """(bytes, seconds of processor time) of each root with all its descendants, by pid. `roots`: pidfds by pid."""
        return self.sums({pid: self.number_of(watch) for pid, watch in roots.items()})

    def sums(self, numbers: Mapping[int, int]) -> dict[int, tuple[int, float]]:
        """The same where the numbers that this /proc gives to the roots are known. `numbers`: by pid."""
        parents, cpu = self._all()
        children = defaultdict(list)
        for pid, parent in parents.items():
            children[parent].append(pid)
        return {pid: self._sum(root, children, cpu) for pid, root in numbers.items() if root in parents}

    def usage_of_one(self, pid: int) -> tuple[int, float]:
        """Of a process that has no others below it."""
        stat = self._read(f"{pid}/stat")
        return self._resident(pid), self._fields(stat)[1] if stat else 0.0

    def unfiltered(self, pid: int) -> bool:
        """Whether a process is known to have no filter of system calls yet."""
        return b"\nSeccomp:\t0\n" in self._read(f"{pid}/status")

    def own_times(self) -> tuple[dict[int, int], dict[int, float]]:
        """Parent of every process, and the processor time of its own threads."""
        parents, cpu = {}, {}
        for name in os.listdir(self._proc):
            if name.isdigit() and (text := self._read(f"{name}/stat")):
                fields = text.rpartition(b")")[2].split()
                parents[int(name)], cpu[int(name)] = int(fields[1]), sum(map(int, fields[11:13])) / _TICK
        return parents, cpu

    def waits(self, pid: int) -> list[tuple[float, float]]:
        """(seconds on a processor, seconds of waiting for one) of each thread."""
        texts = (self._read(f"{pid}/task/{thread}/schedstat").split() for thread in self._threads(pid))
        return [(int(text[0]) / 1e9, int(text[1]) / 1e9) for text in texts if len(text) > 1]

    def command(self, pid: int) -> bytes:
        return self._read(f"{pid}/cmdline")

    def _sum(self, root: int, children: dict[int, list[int]], cpu: dict[int, float]) -> tuple[int, float]:
        members, queue = [], [root]
        while queue:
            members.append(pid := queue.pop())
            queue += children.get(pid, ())
        return self._memory(members), sum(cpu[pid] for pid in members)

    def sum_of(self, pids: list[int]) -> tuple[int, float]:
        """(bytes, seconds of processor time) of these processes."""
        return self._memory(pids), sum(self._fields(stat)[1] for pid in pids if (stat := self._read(f"{pid}/stat")))

    def parent_of(self, pid: int) -> int:
        """0 if it has ended."""
        stat = self._read(f"{pid}/stat")
        return self._fields(stat)[0] if stat else 0

    def _memory(self, pids: list[int]) -> int:
        memory = sum(map(self._resident, pids))
        return sum(map(self._proportional_memory, pids)) if memory > _LOOK_CLOSER else memory

    def _all(self) -> tuple[dict[int, int], dict[int, float]]:
        """Parent and processor time of every process, with the time of the children that it has waited for."""
        parents, cpu = {}, {}
        for name in os.listdir(self._proc):
            if name.isdigit() and (text := self._read(f"{name}/stat")):
                parents[int(name)], cpu[int(name)] = self._fields(text)
        return parents, cpu

    @staticmethod
    def _fields(stat: bytes) -> tuple[int, float]:
        """(parent, seconds of processor time)."""
        fields = stat.rpartition(b")")[2].split()
        return int(fields[1]), sum(map(int, fields[11:15])) / _TICK

    def _resident(self, pid: int) -> int:
        if pages := self._pages(pid):
            return pages * _PAGE
        return max(map(self._pages, self._threads(pid)), default=0) * _PAGE  # its first thread may have left the others

    def _pages(self, thread: int) -> int:
        fields = self._read(f"{thread}/statm").split()
        return int(fields[1]) if fields else 0

    def _threads(self, pid: int) -> list[int]:
        with suppress(OSError):
            fd = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._proc)
            try:
                return [int(name) for name in os.listdir(fd)]
            finally:
                os.close(fd)
        return []

    def _proportional_memory(self, pid: int) -> int:
        for line in self._read(f"{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
        return self._resident(pid)

    def _read(self, name: str) -> bytes:
        with suppress(OSError):
            fd = os.open(name, os.O_RDONLY, dir_fd=self._proc)
            try:
                return os.read(fd, 1 << 16)
            finally:
                os.close(fd)
        return b""
