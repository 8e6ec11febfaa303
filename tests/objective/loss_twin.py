"""The slow, obvious twin of the trajectory side: plain Python, one token at a time, straight from the formulas.

A step is a list of trajectories, each a list of `Token`s. It shares no code with agentrl.objective, and names the
components' defaults anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Token:
    now: float  # log-probs
    old: float
    behavior: float
    reference: float
    advantage: float
    entropy: float
    value: float
    old_value: float
    target: float  # NaN: the critic is not asked
    kept: bool
    turn: int
    group: int
    drawn: bool  # by clip_cov
    right: bool  # its trajectory succeeded


Row = Sequence[Token]


def mean(xs: Sequence[float]) -> float:
    return sum(xs) / len(xs)


def between(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def anchor_of(name: str, t: Token) -> float:
    return {"old": t.old, "behavior": t.behavior}[name]


def ratio_of(name: str, row: Row, t: Token, anchor: str) -> float:
    """`row`: the trajectory's kept tokens."""
    logs = {id(u): u.now - anchor_of(anchor, u) for u in row}
    if name == "none":
        return t.now
    if name == "token":
        return math.exp(logs[id(t)])
    if name == "turn":
        return math.exp(mean([logs[id(u)] for u in row if u.turn == t.turn]))
    if name == "sequence_product":
        return math.exp(sum(logs.values()))
    return math.exp(mean(list(logs.values())))  # sequence_geo, seq_token_sg


def clip_loss(r: float, a: float, low: float, high: float) -> float:
    return -min(r * a, between(r, 1 - low, 1 + high) * a)


def gate_loss(name: str, row: Row, t: Token, r: float, anchor: str, p: dict[str, Any]) -> float:
    a, low, high = t.advantage, p.get("low", 0.2), p.get("high", 0.2)
    logs = [u.now - anchor_of(anchor, u) for u in row]
    if name == "none":
        return -r * a
    if name == "clip":
        return clip_loss(r, a, low, high)
    if name == "dual_clip":
        loss = clip_loss(r, a, low, high)
        return min(loss, -p.get("cap", 3.0) * a) if a < 0 else loss
    if name == "two_sided":
        return -min(min(r, p.get("delta", 4.0)) * a, between(r, 1 - low, 1 + high) * a)
    if name == "detached_clip":
        return -between(r, p.get("floor", 0.0), p.get("cap", 5.0)) * a * t.now
    if name == "sigmoid":
        tau = p.get("tau_positive", 1.0) if a > 0 else p.get("tau_negative", 1.05)
        return -a * (4 / tau) / (1 + math.exp(-tau * (r - 1)))
    if name == "logspace_geo":
        bound, sign = p.get("bound", 0.4), math.copysign(1, a)
        clipped = [sign * min(sign * x, sign * between(x, -bound, bound)) for x in logs]
        return -a * math.exp(mean(clipped))
    if name == "prob_mask":
        rise = math.exp(t.now) - math.exp(anchor_of(anchor, t))
        masked = (a > 0 and rise > high) or (a < 0 and rise < -low)
        return 0.0 if masked else -min(r, p.get("cap", 20.0)) * a * t.now
    if name == "positive_free":
        return -(1.0 if a >= 0 else min(r, p.get("cap", 1.0))) * a * t.now
    if name == "l2_logratio":
        return (a - p["tau"] * sum(logs)) ** 2
    if name == "log_clip":
        x = t.now - anchor_of(anchor, t)
        return -min(x * a, between(x, math.log(1 - low), math.log(1 + high)) * a)
    if name == "gamma_kernel":
        k, lam = (p.get("k_positive", 2.0), p.get("lam_positive", 3.0))
        if a < 0:
            k, lam = (p.get("k_negative", 3.0), p.get("lam_negative", 2.0))
        return -(r**k) * math.exp(lam * (1 - r)) * a * t.now
    assert name == "clip_cov"
    return 0.0 if t.drawn else clip_loss(r, a, low, high)


def factor_of(name: str, row: Row, t: Token, p: dict[str, Any]) -> float:
    logs = [u.old - u.behavior for u in row]
    token, product, geometric = math.exp(t.old - t.behavior), math.exp(sum(logs)), math.exp(mean(logs))
    if name == "token_tis":
        return min(token, p.get("cap", 2.0))
    if name == "sequence_tis":
        return min(product, p.get("cap", 2.0))
    if name == "opsm":
        drift = mean([u.behavior - u.now for u in row])
        return 0.0 if t.advantage < 0 and drift > p.get("delta", 0.5) else 1.0
    low, high = {"token_mask": (0.5, 5.0), "sequence_mask": (0.0, 3.0), "geometric_mask": (0.99, 1.01)}[name]
    low, high = p.get("low", low), p.get("high", high)
    x = {"token_mask": token, "sequence_mask": product, "geometric_mask": geometric}[name]
    if not low <= x <= high:
        return 0.0
    return 1.0 if name == "geometric_mask" else x


def penalty_of(name: str, t: Token, anchor: str, p: dict[str, Any], highest: Callable[[Token], bool]) -> float:
    d, coef = t.now - t.reference, p.get("coef", 0.0)
    k3 = math.exp(-d) - 1 + d
    if name == "adaptive_entropy":
        return -p["initial"] * t.entropy
    return (
        coef
        * {
            "k1": d,
            "k2": d**2 / 2,
            "k3": k3,
            "k3_plus": k3,
            "k3_unbiased": math.exp(t.now - anchor_of(anchor, t)) * k3,
            "entropy": -t.entropy,
            "kl_cov": abs(t.now - anchor_of(anchor, t)) * highest(t),
            "positive_nll": -t.now * t.right,
            "behavior_k2": (t.now - t.behavior) ** 2,
        }[name]
    )


def of_highest_covariance(rows: Sequence[Row], share: float) -> Callable[[Token], bool]:
    """Whether a token is among the share of kept tokens with the highest covariance, at the step's start."""
    tokens = [t for row in rows for t in row]
    if not tokens:
        return lambda t: False
    a, logs = mean([t.advantage for t in tokens]), mean([t.old for t in tokens])
    ranked = sorted(tokens, key=lambda t: -(t.advantage - a) * (t.old - logs))
    chosen = {id(t) for t in ranked[: max(1, int(share * len(tokens)))]}
    return lambda t: id(t) in chosen


def critic_loss(t: Token, p: dict[str, Any]) -> float:
    if math.isnan(t.target):
        return 0.0
    clip = p.get("clip", 0.2)
    near = between(t.value, t.old_value - clip, t.old_value + clip)
    return p.get("coef", 0.1) * 0.5 * max((t.value - t.target) ** 2, (near - t.target) ** 2)


def aggregated(name: str, rows: Sequence[Row], losses: Sequence[Sequence[float]], length: float) -> float:
    flat = [(t, x) for row, of_row in zip(rows, losses, strict=True) for t, x in zip(row, of_row, strict=True)]
    if name == "token_mean":
        return mean([x for _, x in flat])
    if name == "seq_mean_token_mean":
        return mean([mean(x) for x in losses])
    if name == "seq_mean_token_sum":
        return mean([sum(x) for x in losses])
    if name == "seq_sum_const":
        return mean([sum(x) for x in losses]) / length
    if name == "prompt_mean":
        return mean([mean([x for t, x in flat if t.group == g]) for g in {t.group for t, _ in flat}])
    turns = {(i, t.turn) for i, row in enumerate(rows) for t in row}
    of_turn = [[x for t, x in zip(rows[i], losses[i], strict=True) if t.turn == turn] for i, turn in sorted(turns)]
    return mean([mean(x) for x in of_turn])


def loss(trajectories: Sequence[Row], choices: dict[str, dict[str, Any]]) -> float:
    """`choices`: slot to {name, parameters}; anchor, ratio, gate and aggregate, and what else there is."""
    rows = [kept for row in trajectories if (kept := [t for t in row if t.kept])]
    if not rows:
        return 0.0
    anchor, gate = choices["anchor"]["name"], choices["gate"]
    mismatch, regularize, critic = (choices.get(slot) for slot in ("mismatch", "regularize", "critic"))
    highest = of_highest_covariance(rows, (regularize or {}).get("share", 0.0002))
    losses = []
    for row in rows:
        of_row = []
        for t in row:
            r = ratio_of(choices["ratio"]["name"], row, t, anchor)
            x = gate_loss(gate["name"], row, t, r, anchor, gate)
            if mismatch:
                x *= factor_of(mismatch["name"], row, t, mismatch)
            if regularize:
                x += penalty_of(regularize["name"], t, anchor, regularize, highest)
            if critic and critic["name"] != "none":
                x += critic_loss(t, critic)
            of_row.append(x)
        losses.append(of_row)
    return aggregated(choices["aggregate"]["name"], rows, losses, choices["aggregate"].get("length", 1))
