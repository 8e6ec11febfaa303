"""The policy loss of one micro-batch, and in the same pass the sums its diagnosis needs.

What comes in: `LossInputs` and the trajectory side's components. What goes out: `LossOutput`. Knows no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.objective.spec import ObjectiveSpec
from agentrl.objective.trajectory_side.inputs import LossInputs, LossOutput
from agentrl.objective.trajectory_side.mismatch import sampler_ratio
from agentrl.objective.trajectory_side.ratio import bounded_exp
from agentrl.objective.trajectory_side.regularize import k3

if TYPE_CHECKING:
    from torch import Tensor


def policy_loss(spec: ObjectiveSpec, inputs: LossInputs) -> LossOutput:
    """sum_t w_t (c_t gate(r_t, A_t) + regularizers_t + critic_t), c the product of the mismatch corrections.

    Raises:
        ConfigError: a component needs log-probs of a reference, entropies or values, and there are none.
    """
    gated = spec.gate(inputs, spec.ratio(inputs, spec.anchor(inputs)))
    policy, cut = gated.loss, gated.cut
    for mismatch in spec.mismatch:
        factor = mismatch(inputs)
        policy, cut = factor * policy, cut | (factor == 0)
    penalties = [penalty for each in spec.regularize if (penalty := each(inputs)) is not None]
    of_critic = spec.critic.loss(inputs)
    per_token = sum([*penalties, *([] if of_critic is None else [of_critic])], start=policy)
    used = inputs.weights > 0
    loss = (inputs.weights * per_token.where(used, 0.0)).sum()
    rows = {
        "policy_loss": policy.detach(),
        "clipped_positive": (cut & (inputs.advantages > 0)).to(inputs.weights.dtype),
        "clipped_negative": (cut & (inputs.advantages < 0)).to(inputs.weights.dtype),
        **_diagnostics(inputs),
    }
    if penalties:
        rows["regularizer"] = sum(penalties[1:], start=penalties[0]).detach()
    if of_critic is not None:
        rows["critic_loss"] = of_critic.detach()
    rows = {name: row.where(used, 0.0) for name, row in rows.items()}
    sums = {name: row.sum() for name, row in rows.items()}
    sums["tokens"] = used.sum().to(inputs.weights.dtype)
    maxima = {name: _largest(rows[name]) for name in ("ratio", "behavior_abs")}
    samples = {"ratio": rows["ratio"][used]}
    return LossOutput(loss=loss, sums=sums, maxima=maxima, samples=samples)


def _diagnostics(inputs: LossInputs) -> dict[str, Tensor]:
    """[A] each. "sampler" and "behavior" compare the learner at the step's start with the engine; ESS is
    (sum sampler_ratio)^2 / (tokens * sum sampler_ratio_squared)."""
    logprobs, old = inputs.logprobs.detach(), inputs.old_logprobs.detach()
    behavior_gap = inputs.behavior_logprobs - old  # log mu - log pi_old, on samples of mu
    weight = sampler_ratio(inputs)
    rows = {
        "ratio": bounded_exp(logprobs - old),
        "old_k3": k3(old - logprobs),
        "behavior_k1": behavior_gap,
        "behavior_k3": k3(behavior_gap),
        "behavior_abs": behavior_gap.abs(),
        "sampler_ratio": weight,
        "sampler_ratio_squared": weight**2,
    }
    if inputs.reference_logprobs is not None:
        rows["reference_k1"] = logprobs - inputs.reference_logprobs
        rows["reference_k3"] = k3(logprobs - inputs.reference_logprobs)
    if inputs.entropies is not None:
        rows["entropy"] = inputs.entropies.detach()
    return rows


def _largest(row: Tensor) -> Tensor:
    return row.max() if len(row) else row.sum()
