"""How well a critic predicted a batch's returns.

What comes in: a credited batch. What goes out: named numbers. Knows no model.
"""

from __future__ import annotations

import numpy as np

from agentrl.objective.batch import Credited, Float64Array

_LAST = 2  # turns from this index on are counted together


def critic_metrics(credited: Credited) -> dict[str, float]:
    """Of the values that the critic had at the step's start, over the loss tokens at which it was asked.

    Returns:
        critic/value and critic/return: means. critic/explained: 1 - Var(return - value) / Var(return), over all
        tokens; critic/explained_turn0, _turn1 and _turn2on: over those of each trajectory's first, second and later
        turns. Left out where all returns are equal. Empty without a critic.
    """
    returns, values = credited.returns, credited.scores.values
    if returns is None or values is None:
        return {}
    asked = credited.batch.loss_mask & ~np.isnan(returns)
    wanted, got = returns[asked].astype(np.float64), values[asked].astype(np.float64)
    if not len(wanted):
        return {}
    out = {"critic/value": float(got.mean()), "critic/return": float(wanted.mean())}
    turns = np.minimum(credited.batch.turn_ids[asked], _LAST)
    parts = {"": np.ones(len(turns), np.bool_), "_turn0": turns == 0, "_turn1": turns == 1, "_turn2on": turns == _LAST}
    shares = {name: explained_variance(wanted[part], got[part]) for name, part in parts.items()}
    return out | {f"critic/explained{name}": share for name, share in shares.items() if share is not None}


def explained_variance(wanted: Float64Array, got: Float64Array) -> float | None:
    """1 - Var(wanted - got) / Var(wanted): 1 is perfect, 0 no better than a constant; None where it is undefined."""
    spread = float(wanted.var()) if len(wanted) else 0.0
    return 1.0 - float((wanted - got).var()) / spread if spread > 0 else None
