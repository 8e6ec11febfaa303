"""Tiers `docker`, `podman` and `gvisor`: the worker lives in a container, and the walls of a run stand inside it.

In: a pool's settings. Out: places where worker processes are started. It knows nothing of runs: descriptors pass from
the pool to the worker over a socket that the container was given, as they do everywhere else.
"""

from __future__ import annotations

from .gvisor import Gvisor
from .place import DEFAULT_IMAGE, Containers, Sizes

CONTAINER_TIERS = ("gvisor", "docker", "podman")  # the strongest first

__all__ = ["CONTAINER_TIERS", "DEFAULT_IMAGE", "Containers", "Gvisor", "Sizes"]
