"""`agentrl check`: whether an environment keeps its contract."""

from __future__ import annotations

import argparse

from agentrl.cli.output import STDOUT, print_table, write_json
from agentrl.config.overrides import apply_overrides, parse_override
from agentrl.env.base import Env
from agentrl.env.check import check_env
from agentrl.env.registry import make


def run(arguments: argparse.Namespace) -> int:
    settings = apply_overrides({}, [parse_override(text) for text in arguments.overrides])

    def factory() -> Env:
        return make(arguments.env, **settings)

    results = check_env(factory)
    if arguments.json != STDOUT:
        rows = [("ok" if result.passed else "FAILED", result.name, result.detail) for result in results]
        print_table(f"check {arguments.env}", ("", "check", "detail"), rows)
    write_json(arguments.json, [{"name": r.name, "passed": r.passed, "detail": r.detail} for r in results])
    return 0 if all(result.passed for result in results) else 1
