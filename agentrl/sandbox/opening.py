"""The one place where it is decided whether sandboxes are this machine's or others'.

In: settings, and the environment of this process. Out: a pool, not yet open. The environment may say what the settings
do not: `SANDBOX_RUNNER_ADDRESSES` (with commas between them), and `SANDBOX_RUNNER_TOKEN` or
`SANDBOX_RUNNER_TOKEN_FILE`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from .containers import DEFAULT_IMAGE
from .limits import Limits
from .pool import SandboxPool
from .protocol import Pool
from .remote import HttpPool
from .result import STRENGTH

ADDRESSES, TOKEN, TOKEN_FILE = (f"SANDBOX_RUNNER_{name}" for name in ("ADDRESSES", "TOKEN", "TOKEN_FILE"))


def open_pool(
    *,
    addresses: Sequence[str] | None = None,
    token: str = "",
    token_file: str | os.PathLike[str] = "",
    tier: str | None = None,
    minimum: str = "landlock",
    limits: Limits | None = None,
    running: int | None = None,
    sessions: int | None = None,
    starting: int | None = None,
    memory_bytes: int | None = None,
    processes: int | None = None,
    preload: str | Sequence[str] = "bare",
    warm: str = "",
    workers: int | None = None,
    image: str = DEFAULT_IMAGE,
    patience_s: float = 60.0,
    tls: ssl.SSLContext | None = None,
    i_know_this_is_unsafe: bool = False,
) -> Pool:
    """A pool, for `async with open_pool() as pool`. Of this machine if there are no addresses, else of those servers.

    Args:
        addresses: of servers, `http://host:port`; those of the environment if None. `()`: this machine in any case.
        token: of the servers; else what `token_file` holds, or what the environment says.
        tier: which isolation; servers must have it or a stronger one.
        minimum: the weakest that is accepted. A weaker machine or server raises TierUnavailable at the opening.
        limits: the default ones.
        running: runs at once; four for each worker, or 256 on servers.
        sessions, starting, memory_bytes, processes: bounds of this machine, as of SandboxPool. Not used with servers,
            which have their own.
        preload: modules that every run finds imported, or a set of them, as of SandboxPool. Servers must have been
            started with them.
        warm: a program run once after that. Servers have none.
        workers: fork servers of this machine. Not used with servers, which have their own.
        image: for tiers whose workers live in containers. Not used with servers.
        patience_s: how long a run may wait for its turn at servers. Not used on this machine.
        tls: for https; the system's authorities if None.
        i_know_this_is_unsafe: has to be said with tier `none`, which is of this machine alone.

    Raises:
        ValueError: settings that exclude each other, no token, an address or a tier that is none.
        OSError: the token's file cannot be read.
    """
    if addresses is None:
        addresses = [each.strip() for each in os.environ.get(ADDRESSES, "").split(",") if each.strip()]
    if not addresses:
        return SandboxPool(
            tier=tier,
            minimum=minimum,
            workers=workers,
            running=running,
            sessions=sessions,
            starting=starting,
            memory_bytes=memory_bytes,
            processes=processes,
            preload=preload,
            warm=warm,
            limits=limits,
            image=image,
            i_know_this_is_unsafe=i_know_this_is_unsafe,
        )
    if tier == "none":
        raise ValueError("tier 'none' is of this machine alone: say addresses=() with it")
    if tier and STRENGTH.get(tier, len(STRENGTH)) < STRENGTH.get(minimum, 0):
        raise ValueError(f"tier {tier!r} is weaker than the minimum {minimum!r}")
    if warm:
        raise ValueError("`warm` is for this machine alone: servers have no such program")
    return HttpPool(
        addresses,
        token=_token(token, token_file),
        minimum=tier or minimum,
        limits=limits,
        running=running or 256,
        patience_s=patience_s,
        preload=preload,
        tls=tls,
    )


def _token(token: str, path: str | os.PathLike[str]) -> str:
    if token:
        return token
    if path or not os.environ.get(TOKEN):
        path = path or os.environ.get(TOKEN_FILE, "")
        if not path:
            raise ValueError(
                f"there are servers and no token: give `token` or `token_file`, or set {TOKEN} or {TOKEN_FILE}"
            )
        return Path(path).read_text(encoding="ascii").strip()
    return os.environ[TOKEN].strip()
