"""The recorded runs of `credit_matters.py` as a picture and as tables.

What comes in: records. What goes out: docs/credit_matters.png, and the tables between the marks of docs/credit.md. Runs
nothing. Intervals are 95 % t-intervals over seeds; ratios are of equal seeds, and their interval is that of the mean
logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from credit_runs import METHODS

Record = Mapping[str, Any]
Env = Mapping[str, Any]
DOCS = Path(__file__).parent.parent / "docs"
GOAL = 0.9
WINDOW = 8  # steps that the success of sampled play is averaged over
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t by number of seeds
BROADCASTS = ("grpo", "rloo", "rloo_outcome")


def best_lr(records: Sequence[Record], env: Env, seed: int) -> dict[str, float]:
    """The learning rate of each method whose run on the tuning seed had the highest mean success of sampled play."""
    best: dict[str, tuple[float, float]] = {}
    for r in records:
        if r["seed"] == seed and r["env"] == dict(env):
            score = mean(success for _, success in r["sampled"])
            best[r["method"]] = max(best.get(r["method"], (-1.0, 0.0)), (score, r["lr"]))
    return {method: lr for method, (_, lr) in best.items()}


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


def final_runs(records: Sequence[Record], env: Env, seeds: Sequence[int]) -> dict[str, list[Record]]:
    """The compared runs of each method, in the order of METHODS and of the seeds."""
    runs = [r for r in records if r["env"] == dict(env) and r["seed"] in seeds]
    found = {m: sorted((r for r in runs if r["method"] == m), key=lambda r: r["seed"]) for m in METHODS}
    return {m: group for m, group in found.items() if group}


def tokens_by_seed(runs: Sequence[Record], kind: str) -> tuple[dict[int, float], int]:
    """Tokens to GOAL of each seed, and how many seeds did not get there (they count with all their tokens)."""
    curves = {r["seed"]: (smooth(r["sampled"]) if kind == "sampled" else r["greedy"], r["tokens"]) for r in runs}
    reached = {seed: to_goal(curve, limit) for seed, (curve, limit) in curves.items()}
    return {seed: tokens for seed, (tokens, _) in reached.items()}, sum(not ok for _, ok in reached.values())


def table(records: Sequence[Record], env: Env, seeds: Sequence[int]) -> list[str]:
    """Tokens to GOAL and the end of every method, as Markdown."""
    runs = final_runs(records, env, seeds)
    rivals = {k: {m: tokens_by_seed(r, k)[0] for m, r in runs.items()} for k in ("greedy", "sampled")}
    broadcast = {
        k: min((m for m in BROADCASTS if m in runs), key=lambda m: mean(rivals[k][m].values())) for k in rivals
    }
    lines = [
        "| method | lr | thousand tokens to 0.9, greedy | share | thousand tokens to 0.9, sampled | share "
        "| greedy at the end | sampled at the end |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, group in runs.items():
        cells = [METHODS[method].label, f"{group[0]['lr']:g}"]
        for kind in ("greedy", "sampled"):
            tokens, missed = tokens_by_seed(group, kind)
            cells.append(_thousands(list(tokens.values()), missed))
            same = method == broadcast[kind]
            cells.append(
                "1" if same else "{:.2f} [{:.2f}, {:.2f}]".format(*ratio(tokens, rivals[kind][broadcast[kind]]))
            )
        cells.append(_mean([r["greedy"][-1][1] for r in group]))
        cells.append(_mean([smooth(r["sampled"])[-1][1] for r in group]))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def by_env(records: Sequence[Record], envs: Sequence[Env], seeds: Sequence[int], methods: Sequence[str]) -> list[str]:
    """Tokens to GOAL, of sampled play, of a few methods; behind them the share of the first one's. A column an env."""
    columns = [final_runs(records, env, seeds) for env in envs]
    lines = ["| method | " + " | ".join(_named(env) for env in envs) + " |", "|---" * (len(envs) + 1) + "|"]
    for method in methods:
        cells = [METHODS[method].label]
        for runs in columns:
            tokens = {m: tokens_by_seed(r, "sampled") for m, r in runs.items()}
            if method not in tokens:
                cells.append("-")
                continue
            own, missed = tokens[method]
            cell = _thousands(list(own.values()), missed)
            if method != methods[0] and methods[0] in tokens:
                cell += f"; {_share(own, tokens[methods[0]][0])}"
            cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write_page(records: Sequence[Record], main: Env, envs: Sequence[Env], at_once: Env, seeds: Sequence[int]) -> None:
    """Write the tables into docs/credit.md."""
    page = DOCS / "credit.md"
    write_between(page, "methods", table(records, main, seeds))
    write_between(page, "length", by_env(records, [*envs, main], seeds, ("rloo_outcome", "gigpo", "peer_credit")))
    paid = by_env(records, [main, at_once], seeds, ("rloo_outcome", "return_to_go", "peer_credit"))
    write_between(page, "payment", paid)


def draw(records: Sequence[Record], main: Env, envs: Sequence[Env], seeds: Sequence[int]) -> None:
    """Draw docs/credit_matters.png: held-out greedy success, success of sampled play, and tokens by length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.6), layout="constrained")
    greedy, sampled, length = figure.subplots(1, 3, width_ratios=(4, 4, 3))
    for number, (method, runs) in enumerate(final_runs(records, main, seeds).items()):
        style = {"color": f"C{number}", "label": METHODS[method].label, "lw": 2.4 if method == "peer_credit" else 1.4}
        _curve(greedy, [r["greedy"] for r in runs], style)
        _curve(sampled, [smooth(r["sampled"]) for r in runs], style)
    for axes, title in ((greedy, "greedy, held-out parcels"), (sampled, f"sampled play, mean of {WINDOW} steps")):
        axes.axhline(GOAL, color="0.6", lw=0.8, ls=":")
        axes.set(title=title, xlabel="sampled tokens, thousands", ylabel="parcels delivered", ylim=(0, 1.02))
    _lengths(length, records, [*envs, main], seeds)
    figure.legend(*greedy.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(DOCS / "credit_matters.png", dpi=110)


def _curve(axes: Any, curves: Sequence[Sequence[Sequence[float]]], style: Mapping[str, Any]) -> None:
    """Mean over seeds, and its interval as a band; the curves have their points at nearly the same tokens."""
    points = [(mean(p[0] for p in at) / 1000, *interval([p[1] for p in at])) for at in zip(*curves, strict=True)]
    x, y, half = zip(*points, strict=True)
    axes.plot(x, y, **style)
    low, high = [a - b for a, b in zip(y, half, strict=True)], [a + b for a, b in zip(y, half, strict=True)]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.1, lw=0)


def _lengths(axes: Any, records: Sequence[Record], envs: Sequence[Env], seeds: Sequence[int]) -> None:
    """Tokens to GOAL of the methods that were run on every length of journey."""
    runs = {env["forks"]: final_runs(records, env, seeds) for env in envs}
    for number, method in enumerate(METHODS):
        if all(method in found for found in runs.values()):
            points = [
                interval([t / 1000 for t in tokens_by_seed(r[method], "sampled")[0].values()]) for r in runs.values()
            ]
            centres, halves = zip(*points, strict=True)
            axes.errorbar(list(runs), centres, halves, fmt="o-", capsize=3, color=f"C{number}")
    axes.set(title=f"tokens to {GOAL}, sampled play", xlabel="later turns", ylabel="sampled tokens, thousands")
    axes.set(ylim=(0, None), xticks=list(runs))


def write_between(page: Path, mark: str, lines: Sequence[str]) -> None:
    """Replace what stands between `<!-- mark -->` and `<!-- end of mark -->`."""
    text = page.read_text(encoding="utf-8")
    head, opening, rest = text.partition(f"<!-- {mark} -->\n")
    _, closing, tail = rest.partition(f"<!-- end of {mark} -->")
    if not opening or not closing:
        raise SystemExit(f"{page} has no marks <!-- {mark} --> and <!-- end of {mark} -->: put them where it belongs")
    page.write_text(head + opening + "\n".join(lines) + "\n" + closing + tail, encoding="utf-8")


def _named(env: Env) -> str:
    return f"{env['forks']} later turns" + (f", paid {env['pays']}" if "pays" in env else "")


def _thousands(tokens: Sequence[float], missed: int) -> str:
    centre, half = interval([t / 1000 for t in tokens])
    few = f" ({missed} of {len(tokens)} not)" if missed else ""
    return f"{'> ' if missed else ''}{centre:.0f} ± {half:.0f}{few}"


def _share(tokens: Mapping[int, float], others: Mapping[int, float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*ratio(tokens, others))


def _mean(values: Sequence[float]) -> str:
    centre, half = interval(values)
    return f"{centre:.2f} ± {half:.2f}"
