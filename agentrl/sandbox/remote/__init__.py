"""Sandboxes of other machines, over HTTP: a small server around a pool, and a client that spreads runs over several.

Standard library only, on both sides. docs/sandbox-serving.md tells how to run it.
"""

from __future__ import annotations

from .client import HttpPool
from .session import HttpSession

__all__ = ["HttpPool", "HttpSession"]
