"""One call of a function in a run of its own. What comes back is a value as JSON, or the reason why there is none."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .jail.order import encode_payload
from .limits import Limits
from .result import CallResult, RunResult, SandboxError, starting
from .streams import CappedPipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pool import SandboxPool

_DEEPEST = 120  # levels; the sandbox's side refuses sooner


async def call(pool: SandboxPool, head: Mapping[str, Any], files: Mapping[str, bytes], limits: Limits) -> CallResult:
    """`head`: `code`, `function` and `arguments`, which is JSON of positional and named ones."""
    payload = encode_payload(dict(head), dict(files))
    async with pool.place(limits):
        try:
            with starting("the call"):
                reader, writer = os.pipe()
        except SandboxError as error:
            return CallResult(None, pool.no_run(error))
        answer = CappedPipe(reader, limits.output_bytes, lambda: None, lambda: None)
        try:
            try:
                live = await pool.finished(pool.order("call", limits), limits, payload, spare=writer)
            except SandboxError as error:
                return CallResult(None, pool.no_run(error))
            finally:
                os.close(writer)
            try:
                answer.drain()
                return _read(answer, pool.result(live, limits))
            finally:
                pool.release(live)
        finally:
            answer.close()


def _read(answer: CappedPipe, run: RunResult) -> CallResult:
    if not run.ok:
        return CallResult(None, run)
    text, truncated = answer.take_bytes()
    try:
        if truncated:
            raise ValueError("it is longer than the limit")
        said = json.loads(text)
        if not isinstance(said, dict) or list(said) != ["value"]:
            raise ValueError("it is not one value")
        if not _shallow(said):
            raise ValueError("it is nested too deep")
    except (ValueError, RecursionError) as error:
        return CallResult(None, _unanswered(run, str(error)))
    return CallResult(said["value"], run)


def _shallow(value: Any) -> bool:
    """Whether lists and dictionaries nest so little that code which walks them by recursion is safe."""
    level = [value]
    for _ in range(_DEEPEST):
        held = [each for each in level if isinstance(each, list | dict)]
        if not held:
            return True
        level = [inner for each in held for inner in (each.values() if isinstance(each, dict) else each)]
    return False


def _unanswered(run: RunResult, why: str) -> RunResult:
    return RunResult(
        "error",
        exit_code=run.exit_code,
        stdout=run.stdout,
        stderr=run.stderr,
        truncated=run.truncated,
        wall_s=run.wall_s,
        cpu_s=run.cpu_s,
        max_rss=run.max_rss,
        tier=run.tier,
        backend=run.backend,
        error=f"there is no answer that could be read: {why[:200]}",
    )
