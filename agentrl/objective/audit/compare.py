"""The estimator's expected gradient beside the true one, in each setting.

What comes in: a spec and settings. What goes out: findings. Regularizers are left out: they have a gradient of their
own, which is no estimate of that of E[R].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrl.objective.audit.draws import Setting
from agentrl.objective.audit.measure import measure
from agentrl.objective.audit.scoring import CriticKind, true_gradient
from agentrl.objective.audit.verdict import Finding
from agentrl.objective.objective import Objective
from agentrl.objective.spec import ObjectiveSpec


def compare(spec: ObjectiveSpec, settings: Sequence[Setting], *, critic: CriticKind = "exact") -> tuple[Finding, ...]:
    """One finding a setting.

    Args:
        critic: whose values are read, if any are: the true ones, or those of a critic that errs
    """
    bare = replace(spec, regularize=())
    return tuple(
        Finding.of(s.name, measure(Objective(bare), s, critic=critic), true_gradient(bare, s)) for s in settings
    )
