"""Which tiers a pool tries, in which order, and where the workers of each are started. In: a pool's settings."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from .containers import CONTAINER_TIERS, Containers, Gvisor, Sizes
from .limits import Limits
from .result import STRENGTH
from .starts import Here, Place

_AUTOMATIC = ("zygote", "bwrap", "landlock")


def tiers_for(tier: str | None, minimum: str) -> tuple[str, ...]:
    """The one that was asked for, else those at least as strong as `minimum`, the strongest first. Containers are slow
    to start and need an image, so they are tried only where no other tier is strong enough.
    """
    if tier:
        return (tier,)
    strong = [each for each in (*_AUTOMATIC, *CONTAINER_TIERS) if STRENGTH[each] >= STRENGTH[minimum]]
    return tuple(each for each in strong if each in _AUTOMATIC) or tuple(strong)


def place_for(tier: str, limits: Limits, runs: int, image: str) -> Place:
    """`runs`: how many a worker may have at once."""
    if tier not in CONTAINER_TIERS:
        return Here(tier)
    if tier == "gvisor":
        return Gvisor()
    usual, names = Limits(), ("memory_bytes", "disk_bytes", "processes")
    most = {name: max(getattr(limits, name), getattr(usual, name)) for name in names}
    return Containers(tier, image, Sizes(replace(limits, **most), runs))


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
