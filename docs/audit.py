"""Writes docs/audit.md, and the record behind it, agentrl/objective/audit/recorded.json: the audit of every preset.

What comes in: the presets. What goes out: both files. `python docs/audit.py` audits, which takes some minutes;
`python docs/audit.py --page` writes the page from the record that is there. Tests compare the page with the record,
and the record with audits made anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrl.objective.audit import report

PAGE = Path(__file__).parent / "audit.md"
RECORD = Path(report.__file__).parent / "recorded.json"
SIZES = (2, 3)

HEAD = """# The audit: which estimators have the gradient they claim

Written by `python docs/audit.py`; do not edit. `agentrl objective audit [PRESET...]` makes the same numbers for presets
and for files of your own, `--set SLOT=VALUE` for a preset with another choice in a slot.

## What is computed

A *world* is a decision process so small that all its episodes can be listed: the policy is a table of softmaxes over
tokens, it chooses actions of one to three tokens, and it decides when to stop; the environment answers by chance, with
process rewards on the way and an outcome at the end; histories meet in shared states; histories are rewritten, so that
a trajectory has several segments. Every batch that a step can sample is listed with its probability, and every one of
them goes through the objective as in training: filters, credit, baseline, scale, terms, then the loss and its gradient
by autograd. So the expected gradient and its variance are sums, not estimates, in float64. They are compared with the
true gradient of J = E[R].

| setting | a batch | what it shows |
|---|---|---|
| errand, G = 2 and G = 3 | one group of one task; 1 to 3 turns | a state with five histories, stopping early |
| detour, G = 2 and G = 3 | one group of one task; 2 to 5 turns | one state at three turn indices |
| easy and hard, G = 2 | a group of each of two tasks | what depends on a task's difficulty, or crosses groups |

The policy is the one that sampled (no `--off-policy`), so ratios are 1 and no gate cuts anything: what a gate does to
later updates of a batch is not in the tables. R is the return after the preset's own shaping and with its KL penalty in
the reward. Regularizers (KL and entropy in the loss, imitation of right answers) are left out, since they have a
gradient of their own. Baselines and coefficients that are kept from step to step are audited at one fixed memory. A
filter that refills is audited without the refill. A preset with a critic is audited twice: with a critic that knows
every value, and with one that errs everywhere by up to 0.3.

## How to read it

* **unbiased**: the expected gradient is the true one, to 1e-9. **scaled**: it is a positive multiple of it, which is a
  step size. **biased**: it points elsewhere.
* **error**: how far off it is after the best scaling, |s g - grad J| / |grad J|, which is the sine of the angle between
  them; 0 means below 1e-9. One number a setting, in the order of the settings.
* **variance**: the trace of the gradient's covariance, once it is scaled to the same length along the true gradient;
  that of `rloo` is 1. One number a setting. A biased estimator can have less: it is then surer of another direction.
* **why**: each choice that is biased when it stands alone in an unbiased method. It is measured so, not looked up.
"""
PRESETS = """## The presets

Settings: {settings}.
"""
PIECES = """## One choice at a time

The unbiased method (`outcome_broadcast`, `leave_one_out`, no scale, `seq_mean_token_sum`) with one choice changed, or
with a credit and a baseline. Settings: {settings}.
"""
READING = """## What the numbers say

* A mean that holds the trajectory itself is off by a factor (1 - 1/G), which is a step size, where it is over whole
  trajectories of the group. Means over the turns at one index, or in one state, hold the return that they are taken off
  in a share that the policy decides: biased (`turn_mean`, `state_mean`, `group_turn_mean`, `anchor_state`,
  `turn_relative`). Means of the others alone are not, as long as a turn without peers is compared with something too.
* Dividing by a spread of the same rewards is biased within one task already, and between tasks it weighs them by how
  little their rewards vary.
* Dividing by a length (`seq_mean_token_mean`), or by a number of tokens that the policy decides (`token_mean`), is
  biased as soon as episodes differ in length.
* A value that is exact makes every lambda unbiased, and 0 the best; one that errs biases every lambda below 1. With
  lambda 1, or as a plain baseline, no critic biases anything.
* With so few peers the noise of the baseline itself is the largest part: `ema`, a running mean that knows no group, has
  half the variance of `leave_one_out` in errand with groups of two. Return-to-go alone gains little, and the mean of
  the few who met the same state can lose: `peer_returns` steadies it with all other turns of the group.
* No baseline takes off what happens by chance after the action. Averaging it over all who passed the next state does
  (`state_pooled`; `state_values` to the end). With `peer_returns` that is the preset `state_credit`: on average over
  the settings the least variance of what is unbiased, needs no critic and compares within the group.
"""
TREES = """## Branched rollouts

A first turn is sampled once and continued several times (`credit = "tree"` shares the mean over the branches). The
branches are no independent samples: a baseline made of them is biased, and so is comparing them with each other beside
it. Here the variance of the first row is 1. Settings: {settings}.
"""
BLURRED = """## State ids that say too little

Equal state ids must mean equal futures. Here they do not: a limit ends the episode after three turns, and the id does
not tell how many are left. What only compares with the others who met a state stays unbiased; what pools their futures
does not. Put into the id all that the future depends on, the turns that are left included. The variance of the first
row is 1. Settings: {settings}.
"""
OFF_POLICY = """## Samples of another policy

The episodes are sampled by mu, whose logits differ from the policy's by up to 0.5, as with stale samples or another
engine; the gradient wanted is that of the policy. Each correction stands in the unbiased method. Weights of single
tokens leave the states that the sampler reached as they are; the product over the trajectory is right, until it is
capped. The variance is relative to `rloo` on-policy. Settings: {settings}.
"""
TAIL = """## What it does not say

The worlds are small, and so are the groups. That an estimator is unbiased is proven for every world by its derivation;
the audit shows that the code does what the derivation says, and that the others are biased at all. How large a bias is,
and how variances compare, depends on the world: in these, rewards are in [0, 1] and episodes of different length have
different returns. A biased estimator can train well, and many do.
"""
SECTIONS = (
    ("presets", PRESETS),
    ("pieces", PIECES),
    ("trees", TREES),
    ("blurred", BLURRED),
    ("off_policy", OFF_POLICY),
)


def page(record: Mapping[str, Any]) -> str:
    """The text of the page."""
    parts = [HEAD]
    for name, text in SECTIONS:
        table = record[name]
        columns = ("verdict", "error", "variance", "why") if name == "presets" else ("verdict", "error", "variance")
        parts.append(text.format(settings="; ".join(table["settings"])))
        parts.append(report.markdown(table, columns=columns) + "\n")
        if name == "pieces":
            parts.append(READING)
    return "\n".join([*parts, TAIL])


def main() -> None:
    if "--page" not in sys.argv:
        from agentrl.objective.audit.tables import all_tables, as_plain

        tables = as_plain(all_tables(SIZES, lambda name: print(name, file=sys.stderr)))
        RECORD.write_text(_lines(tables), encoding="utf-8")
    PAGE.write_text(page(json.loads(RECORD.read_text(encoding="utf-8"))), encoding="utf-8")


def _lines(tables: Mapping[str, Any]) -> str:
    """JSON with one row a line."""
    parts = []
    for name, table in tables.items():
        rows = ",\n".join("  " + json.dumps(row) for row in table["rows"])
        parts.append(f'"{name}": {{"settings": {json.dumps(table["settings"])}, "rows": [\n{rows}\n]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
