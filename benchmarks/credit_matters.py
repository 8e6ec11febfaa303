"""How many sampled tokens does a method need where one early turn decides and the later ones are noise?

What comes in: scenarios/train/courier.toml. What goes out: a line a run in benchmarks/results/credit_matters.jsonl, and
docs/credit_matters.png and the tables of docs/credit.md, made from them (`--draw` makes these alone).

On the journey "tips" all methods have the recipe's learning rate. On the journey "long" each has, of LRS, the one with
which it was first at 0.9 of sampled play on a seed of its own, which is not among those compared. Those of a seed begin
from one policy, warmed up once, and sample equally many episodes. A run whose line is there is skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from credit_runs import JOURNEYS, METHODS, RUNS, Job, run, warm_up
from credit_shown import draw, smooth, to_goal, write_page

RESULTS = Path(__file__).parent / "results/credit_matters.jsonl"
LRS = {"tips": (1e-3,), "long": (1e-3, 2e-3)}
SEEDS = (0, 1, 2, 3, 4)
TRIED_ON = 9  # the seed on which learning rates are chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--draw", action="store_true", help="draw and write what is recorded; run nothing")
    parser.add_argument("--only", nargs="*", default=[], choices=list(METHODS), help="these methods alone")
    parser.add_argument("--journeys", nargs="*", default=list(JOURNEYS), choices=list(JOURNEYS))
    options = parser.parse_args()
    if not options.draw:
        os.environ["OMP_NUM_THREADS"] = "1"
        chosen = options.only or list(METHODS)
        tried = [Job(j, m, TRIED_ON, lr) for j in options.journeys for m in chosen for lr in LRS[j] if len(LRS[j]) > 1]
        do(tried, options.processes)
        best = {(j, m): best_lr(read(), j, m) for j in options.journeys for m in chosen}
        do([Job(j, m, seed, best[j, m]) for j in options.journeys for seed in SEEDS for m in chosen], options.processes)
    records = read()
    draw(records, SEEDS)
    write_page(records, SEEDS)


def best_lr(records: list[dict[str, Any]], journey: str, method: str) -> float:
    """The learning rate that was first at GOAL of sampled play; of those that were not, the one that ended highest."""

    def rank(record: dict[str, Any]) -> tuple[float, float]:
        curve = smooth(record["sampled"])
        tokens, reached = to_goal(curve, math.inf)
        return tokens if reached else math.inf, -curve[-1][1]

    tried = [r for r in records if (r["journey"], r["method"], r["seed"]) == (journey, method, TRIED_ON)]
    return min(tried, key=rank)["lr"] if tried else LRS[journey][0]


def read() -> list[dict[str, Any]]:
    """The recorded runs."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def do(jobs: Iterable[Job], processes: int) -> None:
    """Run what is not recorded yet, and record it."""
    done = {record["key"] for record in read()}
    todo = [job for job in jobs if job.key not in done]
    starts = {job.start: job for job in todo if not job.start.exists()}
    RUNS.mkdir(parents=True, exist_ok=True)
    RESULTS.parent.mkdir(exist_ok=True)
    print(f"{len(todo)} runs to do, {len(starts)} policies to warm up first", flush=True)
    _each(warm_up, list(starts.values()), processes, lambda _: None)
    _each(run, todo, processes, _record)


def _record(record: dict[str, Any]) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _each(work: Callable[[Job], Any], jobs: list[Job], processes: int, keep: Callable[[Any], None]) -> None:
    began = time.monotonic()
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        for number, future in enumerate(as_completed(futures), 1):
            keep(future.result())
            shown = f"{work.__name__} {futures[future].key}"
            print(f"{time.monotonic() - began:6.0f} s  {number}/{len(jobs)}  {shown}", flush=True)


if __name__ == "__main__":
    main()
