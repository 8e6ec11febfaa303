"""sandbox-runner: runs untrusted Python code fast, and lets nothing out. Standard library only; stands alone.

    async with SandboxPool() as pool:
        result = await pool.run("print(input())", stdin="hello", limits=Limits(wall_s=3))

What each tier promises, and what it does not, is in docs/sandbox.md.
"""

from __future__ import annotations

from .compare import same_value
from .limits import Limits
from .metrics import Latency, Metrics
from .opening import open_pool
from .pool import SandboxPool
from .protocol import Pool, PoolSession
from .remote import HttpPool, HttpSession
from .result import (
    CallResult,
    CellResult,
    CommandResult,
    RunResult,
    SandboxError,
    SessionLost,
    Status,
    Tier,
    TierUnavailable,
)
from .session import Session
from .shell import Shell
from .sync import SyncSandboxPool, run_sync

__all__ = [
    "CallResult",
    "CellResult",
    "CommandResult",
    "HttpPool",
    "HttpSession",
    "Latency",
    "Limits",
    "Metrics",
    "Pool",
    "PoolSession",
    "RunResult",
    "SandboxError",
    "SandboxPool",
    "Session",
    "SessionLost",
    "Shell",
    "Status",
    "SyncSandboxPool",
    "Tier",
    "TierUnavailable",
    "open_pool",
    "run_sync",
    "same_value",
]
