"""The loss of every component of the trajectory side against its slow twin, on drawn steps."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields

import numpy as np
import pytest
from hypothesis import given, settings

from agentrl.objective.spec import LIST_SLOTS, SLOTS
from agentrl.trajectory import succeeded
from tests.objective import loss_twin
from tests.objective.loss_play import (
    COMPONENTS,
    MEMORY,
    PARAMETERS,
    SEEDS,
    SIDE,
    draw_step,
    drawn_groups,
    inputs_of,
    with_component,
)

few = settings(deadline=None, max_examples=15)


def rows_of(step):
    """The step's action tokens as the twin wants them."""
    batch = step.batch
    drawn, nothing = step.columns.get("clip_cov"), np.zeros(batch.n_tokens)
    return [
        [
            loss_twin.Token(
                now=step.now[t],
                old=step.old[t],
                behavior=step.behavior[t],
                reference=step.reference[t],
                advantage=step.advantages[t],
                entropy=step.entropies[t],
                value=step.values[t],
                old_value=step.old_values[t],
                target=step.returns[t],
                kept=bool(batch.loss_mask[t]),
                turn=int(batch.turn_ids[t]),
                group=int(batch.group_ids[i]),
                drawn=bool((nothing if drawn is None else drawn)[t]),
                right=succeeded(batch.trajectories[i]),
            )
            for t in np.flatnonzero(batch.action_mask & (batch.token_trajectory == i))
        ]
        for i in range(batch.n_trajectories)
    ]


def choices_of(method):
    """Each slot's component as the spec says it, with the parameters that were given alone."""
    table = method.spec.as_dict()
    out = {}
    for slot in SIDE:
        for chosen in table[slot] if slot in LIST_SLOTS else [table[slot]]:
            name = chosen["name"]
            out[slot] = {"name": name, **PARAMETERS.get((slot, name), {})}
    return out


@pytest.mark.parametrize(("slot", "name"), COMPONENTS)
@few
@given(groups=drawn_groups(), seed=SEEDS)
def test_the_loss_is_the_twins(slot, name, groups, seed):
    method = with_component(slot, name)
    step = draw_step(method, groups, seed, gap=0.3)
    value = method.loss(inputs_of(method, step)).loss.item()
    wanted = loss_twin.loss(rows_of(step), choices_of(method))
    assert value == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_the_twin_knows_the_bonus_that_these_steps_remember():
    assert PARAMETERS["regularize", "adaptive_entropy"]["initial"] == MEMORY["adaptive_entropy"]["coef"]


def test_an_empty_step_has_loss_0():
    for slot, name in COMPONENTS:
        method = with_component(slot, name)
        step = draw_step(method, [], 0)
        assert method.loss(inputs_of(method, step)).loss.item() == loss_twin.loss([], {}) == 0


DEFAULTS = {
    ("gate", "clip"): {"low": 0.2, "high": 0.2},
    ("gate", "dual_clip"): {"low": 0.2, "high": 0.2, "cap": 3.0},
    ("gate", "two_sided"): {"low": 0.2, "high": 0.2, "delta": 4.0},
    ("gate", "detached_clip"): {"floor": 0.0, "cap": 5.0},
    ("gate", "sigmoid"): {"tau_positive": 1.0, "tau_negative": 1.05},
    ("gate", "logspace_geo"): {"bound": 0.4},
    ("gate", "prob_mask"): {"low": 0.2, "high": 0.2, "cap": 20.0},
    ("gate", "positive_free"): {"cap": 1.0},
    ("gate", "log_clip"): {"low": 0.2, "high": 0.2},
    ("gate", "gamma_kernel"): {"k_positive": 2.0, "lam_positive": 3.0, "k_negative": 3.0, "lam_negative": 2.0},
    ("gate", "clip_cov"): {"low": 0.2, "high": 0.2, "share": 0.0002, "cov_low": 1.0, "cov_high": 5.0},
    ("mismatch", "token_tis"): {"cap": 2.0, "floor": 0.0},
    ("mismatch", "sequence_tis"): {"cap": 2.0},
    ("mismatch", "token_mask"): {"low": 0.5, "high": 5.0},
    ("mismatch", "sequence_mask"): {"low": 0.0, "high": 3.0},
    ("mismatch", "geometric_mask"): {"low": 0.99, "high": 1.01},
    ("mismatch", "opsm"): {"delta": 0.5},
    ("regularize", "kl_cov"): {"coef": 1.0, "share": 0.0002},
    ("regularize", "positive_nll"): {"coef": 0.1},
    **{("regularize", k): {"coef": 0.0} for k in ("k1", "k2", "k3", "k3_unbiased", "k3_plus")},
    ("filters", "zero_variance_drop"): {"refill": 0},
    ("filters", "std_top_p"): {"share": 0.25},
    ("filters", "snr_top_p"): {"p": 0.9},
}


@pytest.mark.parametrize(("slot", "name"), DEFAULTS)
def test_the_defaults_are_the_methods_own(slot, name):
    assert asdict(SLOTS[slot][name]()) == DEFAULTS[slot, name]


def test_every_component_with_defaults_is_pinned():
    for slot in ("filters", "anchor", "ratio", "gate", "mismatch", "regularize", "aggregate"):
        for name, cls in SLOTS[slot].items():
            has = [f for f in fields(cls) if f.default is not MISSING]
            wanted = {f.name for f in fields(cls) if f.default is MISSING}
            assert not has or wanted or (slot, name) in DEFAULTS, (slot, name)
