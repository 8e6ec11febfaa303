"""What a run may use. Only numbers; how they are enforced is the tiers' affair (docs/sandbox.md says how well)."""

from __future__ import annotations

from dataclasses import dataclass, fields

MIB = 1 << 20
_SHORTEST_S = 0.01  # of real time: the walls alone take some milliseconds


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes. Each must be above zero, and all but the times whole; ValueError else.

    `wall_s` is from the start of the program, `cpu_s` the sum over its processes. `address_bytes` is for each
    process, `memory_bytes` for all of them together. `output_bytes` is for stdout and stderr each. `result_bytes` is
    for all collected files. `open_files` counts the three streams.
    """

    wall_s: float = 10.0
    cpu_s: float = 10.0
    address_bytes: int = 4096 * MIB
    memory_bytes: int = 1024 * MIB
    processes: int = 64  # threads count
    disk_bytes: int = 256 * MIB
    files: int = 10_000
    open_files: int = 256
    output_bytes: int = MIB
    result_bytes: int = 16 * MIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"Limits.{field.name} is {value!r}: give a number above zero")
            if not field.name.endswith("_s") and not isinstance(value, int):
                raise ValueError(f"Limits.{field.name} is {value!r}: give a whole number")
        if self.wall_s < _SHORTEST_S:
            raise ValueError(
                f"Limits.wall_s is {self.wall_s!r}: give {_SHORTEST_S} s or more, which the walls may take"
            )
