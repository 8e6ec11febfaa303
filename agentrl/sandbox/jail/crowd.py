"""Whether a run met its wall limit because others had the processors.

A run that waits for a processor has not had its time; but a run can make its own threads wait for each other, and may
like to be let off. So what it waited counts only beyond what its own threads used meanwhile, and only while processes
that are no runs, which no run can start, had most of the whole machine. In doubt it was not crowded out. Processes
that are not seen here (of other containers) are taken for idle.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from .processes import ProcessTable

MARK = b"sandbox_jail.boot"  # in the command of each worker of the pool
_LONGEST_S = 5.0  # that any run may have to wait
_SHARE = 0.6  # of the machine; a trainer that is busy with itself has less, and short processes are not seen
_FRESH_S = 0.5


@dataclass(frozen=True)
class Snapshot:
    at: float
    cpu: Mapping[int, float]  # seconds of processor time so far, by pid, of processes that are no runs


class Crowd:
    """`proc`: descriptor of the /proc in which the machine's processes are seen."""

    def __init__(self, proc: int) -> None:
        self._proc = proc
        self._table = ProcessTable(proc)
        self._last = Snapshot(float("-inf"), {})

    def look(self) -> Snapshot:
        """At the machine now, or half a second ago."""
        now = time.monotonic()
        if now - self._last.at > _FRESH_S:
            parents, cpu = self._table.own_times()
            inside = below(self._workers(parents), parents)
            self._last = Snapshot(now, {pid: used for pid, used in cpu.items() if pid not in inside})
        return self._last

    def waited(self, watch: int, wall_s: float, cpu_s: float, since: Snapshot | None) -> float:
        """Seconds that a run was kept from a processor by others, 0 if that is not what ended it.

        `watch`: pidfd of its first process; `cpu_s`: what it used, as far as it was watched; `since`: some time before.
        """
        if since is None or not self._others_had_it(since):  # first, since that costs the same for any number of runs
            return 0.0
        waited = self._kept_waiting(self._table.number_of(watch), cpu_s)
        return waited if waited >= max(_LONGEST_S, wall_s / 2) else 0.0

    def _others_had_it(self, since: Snapshot) -> bool:
        now = self.look()
        others = sum(max(0.0, used - since.cpu.get(pid, 0.0)) for pid, used in now.cpu.items())
        return now.at > since.at and others >= _SHARE * (os.cpu_count() or 1) * (now.at - since.at)

    def _kept_waiting(self, root: int, cpu_s: float) -> float:
        """The longest that a thread waited while none of the run's had a processor, at least."""
        parents, _ = self._table.own_times()
        times = [each for pid in below([root], parents) for each in self._table.waits(pid)]
        used = max(cpu_s, sum(ran for ran, _ in times))
        return max((ran + waited for ran, waited in times), default=0.0) - used

    def _workers(self, parents: Mapping[int, int]) -> list[int]:
        """Of this pool, whose runs are below them."""
        with suppress(OSError, ValueError):
            mine = int(os.readlink("self", dir_fd=self._proc))
            while self._is_worker(parents[mine]):
                mine = parents[mine]
            return [pid for pid, parent in parents.items() if parent == parents[mine] and self._is_worker(pid)]
        return []

    def _is_worker(self, pid: int) -> bool:
        return MARK in self._table.command(pid)


def below(roots: list[int], parents: Mapping[int, int]) -> set[int]:
    """These processes and all their descendants."""
    children = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)
    found, queue = set(), [root for root in roots if root in parents]
    while queue:
        found.add(pid := queue.pop())
        queue += [child for child in children[pid] if child not in found]
    return found
