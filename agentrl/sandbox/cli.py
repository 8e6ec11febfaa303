"""The command `sandbox-runner`: `probe` says what this machine allows, `run FILE` runs a program, `serve` serves."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from .containers import DEFAULT_IMAGE
from .limits import Limits
from .probe import explain, probe
from .remote.cli import add_command, serve
from .result import WALLED, RunResult, SandboxError
from .sync import run_sync

_INFRA_EXIT, _LIMIT_EXIT = 125, 124  # as docker and timeout use them


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return {"probe": _probe, "run": _run, "serve": serve}[options.command](options)
    except (SandboxError, OSError, ValueError) as error:
        print(f"sandbox-runner: {error}", file=sys.stderr)
        return _INFRA_EXIT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandbox-runner", description="Runs untrusted Python code.")
    commands = parser.add_subparsers(dest="command", required=True)
    looks = commands.add_parser("probe", help="say which isolation this machine allows, and what would help")
    looks.add_argument("--json", action="store_true", help="for programs")
    runs = commands.add_parser("run", help="run a program; its output and exit code are passed on")
    runs.add_argument("file", help="the program, - for standard input")
    runs.add_argument("arguments", nargs=argparse.REMAINDER, help="for the program; our own options stand before FILE")
    runs.add_argument("--tier", choices=WALLED)
    runs.add_argument("--stdin", type=Path, help="what the program reads; nothing if not given")
    runs.add_argument("--json", action="store_true", help="print the whole result instead of passing it on")
    for each in (looks, runs):
        each.add_argument("--image", default=DEFAULT_IMAGE, help="for tiers with containers; it is never fetched")
    for field in fields(Limits):
        kind = float if field.name.endswith("_s") else int
        runs.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar="N")
    add_command(commands)
    return parser


def _probe(options: argparse.Namespace) -> int:
    found = asyncio.run(probe(options.image))
    print(json.dumps([asdict(each) for each in found]) if options.json else explain(found))
    return 0 if any(each.works for each in found) else 1


def _run(options: argparse.Namespace) -> int:
    code = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    stdin = options.stdin.read_bytes() if options.stdin else b""
    limits = Limits(**{field.name: getattr(options, field.name) for field in fields(Limits)})
    result = run_sync(code, limits=limits, tier=options.tier, image=options.image, stdin=stdin, argv=options.arguments)
    if options.json:
        print(json.dumps(asdict(result)))
        return 0
    print(result.stdout, end="")
    print(result.stderr, end="", file=sys.stderr)
    if result.status not in ("ok", "error"):
        print(f"sandbox-runner: {result.status}: {result.error}", file=sys.stderr)
    return _exit_code(result)


def _exit_code(result: RunResult) -> int:
    if result.status == "infra_error":
        return _INFRA_EXIT
    if result.status == "signal":
        return 128 + (result.signal or 0)
    return result.exit_code or 0 if result.status in ("ok", "error") else _LIMIT_EXIT


if __name__ == "__main__":
    raise SystemExit(main())
