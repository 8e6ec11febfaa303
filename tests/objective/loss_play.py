"""Steps drawn at random for the trajectory side: everything that a loss reads, and every component by name.

Advantages are drawn, not credited, so that nothing here depends on the reward side. A component with a parameter that
has no default, or that does nothing by default, has it in `PARAMETERS`, and so have bounds that are equal by default; a
new one without is an error in every test that goes through a slot's table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from agentrl.objective import Batch, LossInputs, Objective, Scores
from agentrl.objective.spec import SLOTS
from agentrl.objective.trajectory_side.gate import GATES
from agentrl.trajectory import Group, Outcome
from tests.objective.play import episode, objective

BASE: Mapping[str, Any] = {
    "filters": ["truncated_mask"],
    "credit": "outcome_broadcast",
    "baseline": "group_mean",
    "ratio": "token",
    "gate": "none",
    "aggregate": "seq_mean_token_mean",
}
PARAMETERS: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("gate", "l2_logratio"): {"tau": 0.3},
    ("gate", "clip"): {"low": 0.1, "high": 0.3},
    ("gate", "dual_clip"): {"low": 0.1, "high": 0.2, "cap": 1.3},
    ("gate", "two_sided"): {"low": 0.1, "high": 0.2, "delta": 1.3},
    ("gate", "log_clip"): {"low": 0.1, "high": 0.3},
    ("gate", "sigmoid"): {"tau_positive": 1.5, "tau_negative": 2.5},
    ("gate", "clip_cov"): {"low": 0.1, "high": 0.3, "share": 0.2, "cov_low": 0.05, "cov_high": 5.0},
    ("gate", "logspace_geo"): {"bound": 0.1},
    ("gate", "prob_mask"): {"low": 0.0513, "high": 0.1037, "cap": 1.4},
    ("mismatch", "geometric_mask"): {"low": 0.9, "high": 1.2},
    ("mismatch", "sequence_mask"): {"low": 0.5, "high": 1.5},
    ("mismatch", "opsm"): {"delta": 0.05},
    ("regularize", "k1"): {"coef": 0.5},
    ("regularize", "k2"): {"coef": 0.5},
    ("regularize", "k3"): {"coef": 0.5},
    ("regularize", "k3_unbiased"): {"coef": 0.5},
    ("regularize", "k3_plus"): {"coef": 0.5},
    ("regularize", "entropy"): {"coef": 0.5},
    ("regularize", "adaptive_entropy"): {"target": 1.0, "initial": 0.5},
    ("regularize", "kl_cov"): {"coef": 0.5, "share": 0.2},
    ("regularize", "positive_nll"): {"coef": 0.5},
    ("regularize", "behavior_k2"): {"coef": 0.5},
    ("aggregate", "seq_sum_const"): {"length": 7},
}
MEMORY = {"adaptive_entropy": {"coef": 0.5, "entropy": 0.9}}  # below the target, so that the bonus applies
CRITIC_SLOTS = {
    "token_head": {"credit": "gae_token", "baseline": "value"},
    "turn_head": {"credit": "gae_turn", "baseline": "value"},
}
SIDE = ("anchor", "ratio", "gate", "mismatch", "regularize", "critic", "aggregate")
COMPONENTS = [(slot, name) for slot in SIDE for name in SLOTS[slot]]  # every one of the trajectory side but filters
SEEDS = st.integers(0, 2**32 - 1)


def choice(slot: str, name: str) -> dict[str, Any]:
    """The component, with parameters that make it do something."""
    return {"name": name, **PARAMETERS.get((slot, name), {})}


def with_component(slot: str, name: str, **more: Any) -> Objective:
    """The plain objective with one component, and the ratio or credit that it wants."""
    slots = {**BASE, slot: choice(slot, name)}
    if slot == "gate" and GATES[name].of_sequence and not GATES[name].of_tokens:
        slots["ratio"] = "sequence_product"
    if slot == "critic":
        slots |= CRITIC_SLOTS.get(name, {})
    return objective("reinforce", **{**slots, **more})


@st.composite
def drawn_groups(draw: st.DrawFn) -> list[Group]:
    """One to three groups of one to three episodes: unequal lengths, several rows, cut ones, right and wrong ones."""
    groups = []
    for g in range(draw(st.integers(1, 3))):
        played = []
        for i in range(draw(st.integers(1, 3))):
            turns = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=3))
            right = draw(st.booleans())
            made = [
                (observed, acted, float(right and k == len(turns) - 1)) for k, (observed, acted) in enumerate(turns)
            ]
            cuts = [k for k in draw(st.sets(st.integers(1, 2))) if k < len(turns)]
            outcome = draw(st.sampled_from([Outcome.TERMINATED, Outcome.TERMINATED, Outcome.TRUNCATED_TURNS]))
            played.append(episode(made, group=str(g), seed=i, new_segment_at=cuts, outcome=outcome))
        groups.append(Group(str(g), f"task{g}", tuple(played)))
    return groups


def some_groups(seed: int) -> list[Group]:
    """Two groups of three episodes of one to three turns, some with two rows, some right."""
    rng = np.random.default_rng(seed)
    groups = []
    for g in range(2):
        played = []
        for i in range(3):
            n = 1 + (g + i) % 3
            turns = [(1, int(rng.integers(1, 4)), float(i == 0 and k == n - 1)) for k in range(n)]
            played.append(episode(turns, group=str(g), seed=i, new_segment_at=[1] if i == 1 and n > 1 else []))
        groups.append(Group(str(g), f"task{g}", tuple(played)))
    return groups


@dataclass(frozen=True)
class Step:
    """What the trajectory side reads of a step; [N] float64."""

    batch: Batch
    now: np.ndarray
    old: np.ndarray
    behavior: np.ndarray
    reference: np.ndarray
    advantages: np.ndarray
    entropies: np.ndarray
    values: np.ndarray
    old_values: np.ndarray
    returns: np.ndarray
    columns: Mapping[str, np.ndarray]


def draw_step(method: Objective, groups: Sequence[Group], seed: int, *, gap: float = 0.3) -> Step:
    """`gap` is how far policy, old policy, sampler and reference are apart, nats. Advantages are one a trajectory where
    the objective wants that, else one a token; masked tokens have 0."""
    batch, spec = method.select(groups), method.spec
    rng = np.random.default_rng(seed)
    n = batch.n_tokens
    old = np.minimum(rng.normal(-1.2, 0.4, n), -0.01).astype(np.float32).astype(np.float64)
    whole = (spec.ratio.of_sequence or spec.gate.of_sequence) and not spec.gate.detaches
    drawn = rng.normal(0, 1, batch.n_trajectories)[batch.token_trajectory] if whole else rng.normal(0, 1, n)
    advantages = drawn * batch.loss_mask
    scores = Scores(logprobs=old.astype(np.float32))
    returns = np.where(rng.random(n) < 0.8, rng.normal(0, 1, n), np.nan)
    return Step(
        batch=batch,
        now=old + rng.normal(0, gap, n),
        old=old,
        behavior=old + rng.normal(0, gap, n),
        reference=old + rng.normal(0, gap, n),
        advantages=advantages,
        entropies=rng.uniform(0.1, 2, n),
        values=rng.normal(0, 0.4, n),
        old_values=rng.normal(0, 0.4, n),
        returns=returns,
        columns={k: v for each in spec.preparing for k, v in each.columns(batch, scores, advantages).items()},
    )


def inputs_of(method: Objective, step: Step, *, where: np.ndarray | None = None, **leaves: torch.Tensor) -> LossInputs:
    """The loss inputs of the tokens `where` (all loss tokens by default).

    Args:
        leaves: [N] each, in place of the step's `now`, `entropies` or `values`
    """
    batch = step.batch
    at = np.flatnonzero(batch.loss_mask) if where is None else where
    index = torch.from_numpy(at)

    def pick(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(x, np.float64)[at])

    def leaf(name: str, x: np.ndarray) -> torch.Tensor:
        return leaves[name][index] if name in leaves else pick(x)

    return LossInputs(
        logprobs=leaf("now", step.now),
        old_logprobs=pick(step.old),
        behavior_logprobs=pick(step.behavior),
        advantages=pick(step.advantages),
        weights=pick(method.token_weights(batch)),
        sequence_ids=torch.from_numpy(np.unique(batch.token_trajectory[at], return_inverse=True)[1].astype(np.int64)),
        turn_ids=torch.from_numpy(batch.turn_ids[at]),
        reference_logprobs=pick(step.reference),
        entropies=leaf("entropies", step.entropies),
        values=leaf("values", step.values),
        old_values=pick(step.old_values),
        returns=pick(step.returns),
        columns={name: pick(column) for name, column in step.columns.items()},
        memory=MEMORY,
    )


def loss_and_gradients(
    method: Objective, step: Step, parts: Sequence[np.ndarray] | None = None
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss, and its gradient by log-prob, entropy and value, [N] each; summed over micro-batches.

    Args:
        parts: the token positions of each micro-batch; one with all loss tokens by default
    """
    leaves = {name: torch.tensor(vars(step)[name], requires_grad=True) for name in ("now", "entropies", "values")}
    total = 0.0
    for where in parts if parts is not None else [np.flatnonzero(step.batch.loss_mask)]:
        loss = method.loss(inputs_of(method, step, where=where, **leaves)).loss
        loss.backward()
        total += loss.item()
    zeros = torch.zeros(step.batch.n_tokens, dtype=torch.float64)
    return total, {name: (zeros if x.grad is None else x.grad).numpy() for name, x in leaves.items()}


def policy_gradient(method: Objective, step: Step) -> np.ndarray:
    """[N] by log-prob."""
    return loss_and_gradients(method, step)[1]["now"]


def one_token(logprob: float, old: float, advantage: float, **more: Any) -> LossInputs:
    """A single token, alone in its trajectory, whose log-prob carries the gradient."""
    return tokens([logprob], [old], [advantage], **more)


def tokens(logprobs: Sequence[float], old: Sequence[float], advantages: Sequence[float], **more: Any) -> LossInputs:
    """Tokens of one turn of one trajectory, unless `more` says otherwise; weights 1."""

    def tensor(x: Sequence[float]) -> torch.Tensor:
        return torch.tensor(x, dtype=torch.float64)

    n = len(logprobs)
    made = LossInputs(
        logprobs=tensor(logprobs).requires_grad_(),
        old_logprobs=tensor(old),
        behavior_logprobs=tensor(old),
        advantages=tensor(advantages),
        weights=tensor([1.0] * n),
        sequence_ids=torch.zeros(n, dtype=torch.int64),
        turn_ids=torch.zeros(n, dtype=torch.int64),
        entropies=tensor([0.5] * n),
        columns={name: tensor([0.0] * n) for name in ("clip_cov", "kl_cov", "positive_nll")},
    )
    as_is = {"memory", "columns"}
    ids = {"sequence_ids", "turn_ids"}
    return replace(
        made, **{k: v if k in as_is else torch.tensor(v) if k in ids else tensor(v) for k, v in more.items()}
    )


def cast(inputs: LossInputs, dtype: torch.dtype) -> LossInputs:
    """The same numbers in another precision; the log-probs carry the gradient."""

    def to(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x

    values = {f.name: to(getattr(inputs, f.name)) for f in fields(inputs)}
    values["columns"] = {name: to(column) for name, column in inputs.columns.items()}
    return LossInputs(**{**values, "logprobs": values["logprobs"].detach().requires_grad_()})


@contextmanager
def stop_gradients(tape: list[torch.Tensor], *, replay: bool) -> Iterator[None]:
    """Record what is detached, or give back what was recorded: a stop-gradient is a constant, so that finite
    differences see the function whose gradient autograd takes."""
    original, place = torch.Tensor.detach, iter(list(tape))

    def detach(x: torch.Tensor) -> torch.Tensor:
        if replay:
            return next(place)
        tape.append(original(x))
        return tape[-1]

    torch.Tensor.detach = detach  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.detach = original  # type: ignore[method-assign]
