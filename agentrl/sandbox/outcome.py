"""From a run that is over to its result: its output, its status, its files. Knows no pool."""

from __future__ import annotations

from collections.abc import Sequence

from .collect import collect
from .limits import Limits
from .live import LiveRun
from .result import RunResult
from .verdict import judge


def result_of(live: LiveRun, limits: Limits, wanted: Sequence[str], tier: str) -> RunResult:
    """If the run has not ended, that is the sandbox's failure. `wanted`: names of files to bring back."""
    stdout, cut_out = live.stdout.take()
    stderr, cut_err = live.stderr.take()
    if live.ending is None:
        return RunResult("infra_error", stdout=stdout, stderr=stderr, tier=tier, backend=tier, error=live.trouble)
    status, error = judge(live.ending, limits, overflowed=live.overflowed)
    files: dict[str, bytes] = {}
    if wanted:
        try:
            files, left_out = collect(live.folder, wanted, limits.result_bytes)
        except OSError as lack:
            status, error, left_out = "infra_error", f"its files could not be fetched: {lack}", False
        error = error or (f"files over {limits.result_bytes} bytes were left out" if left_out else "")
    return RunResult(
        status,
        exit_code=live.ending.exit_code,
        signal=live.ending.signal,
        stdout=stdout,
        stderr=stderr,
        truncated=cut_out or cut_err,
        wall_s=live.ending.wall_s,
        cpu_s=live.ending.cpu_s,
        max_rss=live.ending.max_rss,
        files=files,
        tier=tier,
        backend=tier,
        error=error,
    )
