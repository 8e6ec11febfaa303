"""The recorded runs of `credit_matters.py` as a picture and as tables.

What comes in: records. What goes out: docs/credit_matters.png, and the table between the marks of docs/credit.md. Runs
nothing. Intervals are 95 % t-intervals over seeds; ratios are of equal seeds, and their interval is that of the mean
logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from credit_runs import JOURNEYS, METHODS

Record = Mapping[str, Any]
DOCS = Path(__file__).parent.parent / "docs"
GOAL = 0.9
WINDOW = 8  # steps that the success of sampled play is averaged over
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t by number of seeds
BROADCASTS = ("grpo", "rloo_outcome")
KINDS = ("greedy", "sampled")


def to_goal(curve: Sequence[Sequence[float]], limit: float) -> tuple[float, bool]:
    """Tokens before the first point at GOAL, and whether there is one; `limit` without one."""
    return next(((tokens, True) for tokens, success in curve if success >= GOAL), (limit, False))


def smooth(curve: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Success of sampled play, each point with those of the steps before it, WINDOW in all."""
    windows = [curve[i - WINDOW + 1 : i + 1] for i in range(WINDOW - 1, len(curve))]
    return [(window[-1][0], mean(success for _, success in window)) for window in windows]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its t-interval."""
    return mean(values), T95[len(values)] * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def ratio(over: Mapping[int, float], under: Mapping[int, float]) -> tuple[float, float, float]:
    """Geometric mean over seeds of over / under, and its interval."""
    centre, half = interval([math.log(over[s] / under[s]) for s in sorted(over.keys() & under.keys())])
    return math.exp(centre), math.exp(centre - half), math.exp(centre + half)


def final_runs(records: Sequence[Record], journey: str, seeds: Sequence[int]) -> dict[str, list[Record]]:
    """The compared runs of each method, in the order of METHODS and of the seeds."""
    runs = [r for r in records if r["journey"] == journey and r["seed"] in seeds]
    found = {m: sorted((r for r in runs if r["method"] == m), key=lambda r: r["seed"]) for m in METHODS}
    return {m: group for m, group in found.items() if group}


def tokens_by_seed(runs: Sequence[Record], kind: str) -> tuple[dict[int, float], int]:
    """Tokens to GOAL of each seed, and how many seeds did not get there (they count with all their tokens)."""
    curves = {r["seed"]: (smooth(r["sampled"]) if kind == "sampled" else r["greedy"], r["tokens"]) for r in runs}
    reached = {seed: to_goal(curve, limit) for seed, (curve, limit) in curves.items()}
    return {seed: tokens for seed, (tokens, _) in reached.items()}, sum(not ok for _, ok in reached.values())


def table(records: Sequence[Record], journey: str, seeds: Sequence[int]) -> list[str]:
    """Tokens to GOAL by greedy and by sampled play, and the end of every method, as Markdown."""
    runs = final_runs(records, journey, seeds)
    reached = {m: {kind: tokens_by_seed(group, kind) for kind in KINDS} for m, group in runs.items()}
    lines = [
        "| method | lr | greedy: thousand tokens to 0.9 | of GRPO's | of RLOO's on the outcome "
        "| sampled: thousand tokens to 0.9 | of GRPO's | of RLOO's on the outcome | greedy, sampled at the end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, group in runs.items():
        cells = [METHODS[method].label, "{:g}".format(*{r["lr"] for r in group})]
        for kind in KINDS:
            tokens, missed = reached[method][kind]
            cells.append(_thousands(list(tokens.values()), missed))
            for bar in BROADCASTS:
                known = bar in reached and bar != method
                cells.append(_share(tokens, reached[bar][kind][0]) if known else "1" if bar == method else "")
        ends = [_mean([r["greedy"][-1][1] for r in group]), _mean([smooth(r["sampled"])[-1][1] for r in group])]
        lines.append("| " + " | ".join([*cells, ", ".join(ends)]) + " |")
    return lines


def write_page(records: Sequence[Record], seeds: Sequence[int]) -> None:
    """Write a table for each journey into docs/credit.md."""
    for journey in JOURNEYS:
        write_between(DOCS / "credit.md", journey, table(records, journey, seeds))


def draw(records: Sequence[Record], seeds: Sequence[int]) -> None:
    """Draw docs/credit_matters.png: for each journey held-out greedy success, and success of sampled play."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6 * len(JOURNEYS)), layout="constrained")
    grid = figure.subplots(len(JOURNEYS), 2, squeeze=False)
    handles: dict[str, Any] = {}
    for journey, (greedy, sampled) in zip(JOURNEYS, grid, strict=True):
        for method, runs in final_runs(records, journey, seeds).items():
            style = {"color": f"C{list(METHODS).index(method)}", "label": METHODS[method].label, "lw": 1.6}
            _curve(greedy, [r["greedy"] for r in runs], style)
            _curve(sampled, [smooth(r["sampled"]) for r in runs], style)
        for axes, title in ((greedy, "greedy, held-out parcels"), (sampled, f"sampled play, mean of {WINDOW} steps")):
            axes.axhline(GOAL, color="0.6", lw=0.8, ls=":")
            axes.set(title=f"{journey}: {title}", xlabel="sampled tokens, thousands", ylim=(0, 1.02))
            axes.set(ylabel="parcels delivered")
        handles |= {line.get_label(): line for line in greedy.get_lines() if not line.get_label().startswith("_")}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(DOCS / "credit_matters.png", dpi=110)


def _curve(axes: Any, curves: Sequence[Sequence[Sequence[float]]], style: Mapping[str, Any]) -> None:
    """Mean over seeds, and its interval as a band; the curves have their points at nearly the same tokens."""
    points = [(mean(p[0] for p in at) / 1000, *interval([p[1] for p in at])) for at in zip(*curves, strict=True)]
    x, y, half = zip(*points, strict=True)
    axes.plot(x, y, **style)
    low, high = [a - b for a, b in zip(y, half, strict=True)], [a + b for a, b in zip(y, half, strict=True)]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.1, lw=0)


def write_between(page: Path, mark: str, lines: Sequence[str]) -> None:
    """Replace what stands between `<!-- mark -->` and `<!-- end of mark -->`."""
    text = page.read_text(encoding="utf-8")
    head, opening, rest = text.partition(f"<!-- {mark} -->\n")
    _, closing, tail = rest.partition(f"<!-- end of {mark} -->")
    if not opening or not closing:
        raise SystemExit(f"{page} has no marks <!-- {mark} --> and <!-- end of {mark} -->: put them where it belongs")
    page.write_text(head + opening + "\n".join(lines) + "\n" + closing + tail, encoding="utf-8")


def _thousands(tokens: Sequence[float], missed: int) -> str:
    centre, half = interval([t / 1000 for t in tokens])
    few = f" ({missed} of {len(tokens)} not)" if missed else ""
    return f"{'> ' if missed else ''}{centre:.0f} ± {half:.0f}{few}"


def _share(tokens: Mapping[int, float], others: Mapping[int, float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*ratio(tokens, others))


def _mean(values: Sequence[float]) -> str:
    centre, half = interval(values)
    return f"{centre:.2f} ± {half:.2f}"
