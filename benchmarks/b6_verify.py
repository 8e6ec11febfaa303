"""B6: time for one answer to a GSM8K problem, in groups of eight to a problem, one in a hundred of them hostile.

Peer: math-verify called directly in one process, the gold answer parsed once a group. Where an answer keeps it for
longer than its own two time limits of 5 s, it is killed and started anew behind that answer; these are the hangs
below. The goal is a tenth of its time, with the same verdicts. LaTeX answers go through math-verify here too: there one
worker can only be as fast as the peer, two workers twice as fast.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from answer_hostile import HOSTILE
from answer_mix import VARIATIONS, changed, gold_answers
from report import Row, arguments, repeat, show

from agentrl.verify import Judgement, Verifier

GROUP = 8
HUNG_S = 12.0
Pair = tuple[str, str]

LATEX = [
    ("\\frac{1}{2}+\\frac13", "\\frac56+{}-{}"), ("x^2+2x+1", "(x+1)^2+{}-{}"), ("\\{1,2,3\\}", "\\{{3,2,1+{}-{}\\}}"),
    ("[1,2)", "[1,2+{}-{})"), ("2\\sqrt2", "\\sqrt{{8}}+{}-{}"), ("y=2x+1", "y=1+2x+{}-{}"),
    ("3\\pi", "\\pi\\cdot3+{}-{}"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{{pmatrix}}1&2\\\\3&4+{}-{}\\end{{pmatrix}}"),
]  # fmt: skip


def main() -> None:
    options = arguments(__doc__ or "")
    draw = random.Random(0)
    problems = 100 if options.quick else 400
    golds = draw.sample(gold_answers(Path(os.environ.get("AGENTRL_DATA", "../shared/data"))), problems)
    clean = [(gold, answer) for gold in golds for answer in group(gold, draw)]
    hostile = list(clean)
    for place in range(50, len(clean), 100):
        hostile[place] = draw.choice(list(HOSTILE.values()))
    latex = [(f"${gold}$", f"\\boxed{{{form.format(n, n + n % 2)}}}") for n in range(50) for gold, form in LATEX]
    rows = [row("GSM8K mix", clean, 2), row("GSM8K mix, 1 % hostile", hostile, 2)]
    rows += [row(f"LaTeX, {n} worker{'s' * (n > 1)}", latex, n) for n in (1, 2)]
    show(f"B6: one answer of {len(clean)}", rows, options.json)


def group(gold: str, draw: random.Random) -> Iterator[str]:
    """Eight answers, about three of them wrong. Without the two dresses in which math-verify finds no number."""
    kinds = [kind for kind in VARIATIONS if kind not in ("spacing", "money")]
    for _ in range(GROUP):
        number = draw.choice(changed(gold)[:5]) if draw.random() < 0.4 else gold
        yield VARIATIONS[draw.choice(kinds)](number)


def row(name: str, pairs: Sequence[Pair], workers: int) -> Row:
    with Verifier(workers=workers, cache_size=0) as verifier:
        verifier.ready_sync()
        found: list[bool] = []

        def once() -> float:
            began = time.perf_counter()
            judged = verifier.verify_batch_sync(pairs)
            seconds = time.perf_counter() - began
            found[:] = [isinstance(got, Judgement) and got.correct for got in judged]
            return seconds / len(pairs) * 1e6

        median, p95 = repeat(once, 3)
    seconds, theirs, hangs = peer(pairs)
    theirs_us = seconds / len(pairs) * 1e6
    differ = sum(mine is not other for mine, other in zip(found, theirs, strict=True) if other is not None)
    rates = f"{1e6 / median:.0f} answers/s, math-verify {1e6 / theirs_us:.0f}"
    print(f"{name}: {rates}; {hangs} hangs; {differ} verdicts differ")
    return Row(name, "us", median, p95, peer=theirs_us, peer_name="math-verify 0.9.0", floor=theirs_us / 10)


def peer(pairs: Sequence[Pair]) -> tuple[float, list[bool | None], int]:
    """Seconds, verdicts (None for a hang), and how many hangs."""
    verdicts: list[bool | None] = []
    hangs, seconds = 0, 0.0
    while len(verdicts) < len(pairs):
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=play_peer, args=(theirs, pairs[len(verdicts) :]))
        child.start()
        theirs.close()
        ours.recv()  # it is warm
        began = time.perf_counter()
        while len(verdicts) < len(pairs):
            if not ours.poll(HUNG_S):
                verdicts.append(None)
                hangs += 1
                break
            verdicts.append(ours.recv())
        seconds += time.perf_counter() - began
        child.kill()
        child.join()
        ours.close()
    return seconds, verdicts, hangs


def play_peer(connection: Connection, pairs: Sequence[Pair]) -> None:
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    for gold, form in LATEX:
        verify(parse(f"${gold}$"), parse(f"\\boxed{{{form.format(1, 1)}}}"))
    connection.send("warm")
    for gold, same in itertools.groupby(pairs, key=lambda pair: pair[0]):
        wanted = parse(gold)
        for _, response in same:
            connection.send(verify(wanted, parse(response)))


if __name__ == "__main__":
    main()
