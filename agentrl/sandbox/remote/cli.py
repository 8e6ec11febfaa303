"""`sandbox-runner serve`: the server as a command. It ends well on SIGTERM and SIGINT: what runs may end first."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import sys
from dataclasses import fields
from pathlib import Path

from ..containers import DEFAULT_IMAGE
from ..limits import Limits
from ..pool import SandboxPool
from ..preload import SETS
from ..result import WALLED
from .server import SandboxServer, ServerSettings

_DEFAULTS = ServerSettings(token="", running=1)
_PRELOAD = f"{', '.join(SETS)}, or modules as A,B"


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serves = commands.add_parser("serve", help="let other machines run programs here, over HTTP")
    serves.add_argument("--listen", default="127.0.0.1:8023", metavar="HOST:PORT", help="port 0: any free one")
    serves.add_argument("--token-file", type=Path, help="holds the bearer token; else $SANDBOX_RUNNER_TOKEN does")
    serves.add_argument("--tier", choices=WALLED)
    serves.add_argument("--minimum", choices=WALLED, default="zygote", help="the weakest tier to serve with")
    serves.add_argument("--image", default=DEFAULT_IMAGE, help="for tiers with containers; it is never fetched")
    serves.add_argument("--workers", type=int, help="fork servers; one for each processor if not given")
    serves.add_argument("--running", type=int, help="runs at once; four for each worker if not given")
    serves.add_argument("--queue", type=int, default=_DEFAULTS.queue, help="requests that may wait; more get a 429")
    serves.add_argument("--starting", type=int, default=_DEFAULTS.starting, help="runs whose walls are being built")
    serves.add_argument("--sessions", type=int, default=_DEFAULTS.sessions, help="at once, beside the runs")
    serves.add_argument("--preload", default="bare", metavar="SET", help=f"what every run finds imported: {_PRELOAD}")
    serves.add_argument("--body-bytes", type=int, default=_DEFAULTS.body_bytes, help="of a request")
    serves.add_argument("--connections", type=int, default=_DEFAULTS.connections)
    serves.add_argument("--longest-s", type=float, default=_DEFAULTS.longest_s, help="of a request's deadline")
    serves.add_argument("--drain-s", type=float, default=_DEFAULTS.drain_s, help="for runs to end when it is stopped")
    serves.add_argument("--certificate", type=Path, help="for https: a PEM file, with its chain")
    serves.add_argument("--key", type=Path, help="for https: the certificate's key")
    for limit in fields(Limits):
        kind = float if limit.name.endswith("_s") else int
        default = getattr(_DEFAULTS.ceiling, limit.name)
        name = f"--max-{limit.name.replace('_', '-')}"
        serves.add_argument(name, type=kind, default=default, metavar="N", help="that a request may ask for")


def serve(options: argparse.Namespace) -> int:
    """Raises ValueError, OSError or SandboxError for what cannot be."""
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--listen {options.listen!r}: write HOST:PORT, such as 0.0.0.0:8023")
    workers = options.workers or len(os.sched_getaffinity(0))
    settings = ServerSettings(
        token=_token(options.token_file),
        running=options.running or 4 * workers,
        queue=options.queue,
        starting=options.starting,
        sessions=options.sessions,
        body_bytes=options.body_bytes,
        connections=options.connections,
        longest_s=options.longest_s,
        drain_s=options.drain_s,
        ceiling=Limits(**{limit.name: getattr(options, f"max_{limit.name}") for limit in fields(Limits)}),
    )
    pool = SandboxPool(
        starting=settings.starting,
        tier=options.tier,
        minimum=options.minimum,
        workers=workers,
        running=settings.running,
        limits=settings.ceiling,  # what its containers are made for; each request brings its own
        image=options.image,
        preload=options.preload if options.preload in SETS else options.preload.split(","),
    )
    asyncio.run(_serve(pool, settings, host.strip("[]"), int(port), _tls(options)))
    return 0


async def _serve(pool: SandboxPool, settings: ServerSettings, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with pool:
        server = SandboxServer(pool, settings)
        await server.start(host, port, tls)
        for address in server.addresses:
            print(f"sandbox-runner: tier {pool.tier}, listening on {address[0]}:{address[1]}", flush=True)
        await stop.wait()
        print("sandbox-runner: stopping", file=sys.stderr, flush=True)
        await server.close()


def _token(path: Path | None) -> str:
    text = path.read_text(encoding="ascii").strip() if path else os.environ.pop("SANDBOX_RUNNER_TOKEN", "")
    if not text:
        raise ValueError("there is no token: give --token-file, or set SANDBOX_RUNNER_TOKEN")
    return text


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)
    return context
