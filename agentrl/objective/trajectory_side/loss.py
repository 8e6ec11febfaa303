"""The policy loss of one micro-batch, and in the same pass the sums its diagnosis needs.

What comes in: `LossInputs` and the trajectory side's components. What goes out: `LossOutput`. Knows no model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agentrl.objective.spec import ObjectiveSpec
from agentrl.objective.trajectory_side.inputs import LossInputs, LossOutput
from agentrl.objective.trajectory_side.mismatch import sampler_gap, sampler_ratio
from agentrl.objective.trajectory_side.ratio import bounded_exp
from agentrl.objective.trajectory_side.regularize import k3

if TYPE_CHECKING:
    from torch import Tensor


def policy_loss(spec: ObjectiveSpec, inputs: LossInputs) -> LossOutput:
    """sum_t w_t (c_t gate(r_t, A_t) + regularizers_t + critic_t), c the product of the mismatch corrections.

    Raises:
        ConfigError: a component needs log-probs of a reference, entropies or values, and there are none.
    """
    inputs = inputs.trained()
    anchor = spec.anchor(inputs)
    inputs = replace(inputs, anchor_logprobs=anchor)
    gated = spec.gate(inputs, spec.ratio(inputs, anchor))
    policy, cut = gated.loss, gated.cut
    rows = _diagnostics(inputs)
    if spec.mismatch:
        correction = policy.new_ones(policy.shape)
        for mismatch in spec.mismatch:
            correction = correction * mismatch(inputs)
        policy, cut = correction * policy, cut | (correction == 0)
        rows["correction"] = correction
    penalties = [penalty for each in spec.regularize if (penalty := each(inputs)) is not None]
    of_critic = spec.critic.loss(inputs)
    per_token = sum([*penalties, *([] if of_critic is None else [of_critic])], start=policy)
    loss = (inputs.weights * per_token).sum()
    rows["policy_loss"] = policy.detach()
    if penalties:
        rows["regularizer"] = sum(penalties[1:], start=penalties[0]).detach()
    if of_critic is not None:
        rows["critic_loss"] = of_critic.detach()
    return _output(loss, {**rows, **_by_sign(inputs, cut)})


def _output(loss: Tensor, rows: dict[str, Tensor]) -> LossOutput:
    sums = {name: row.sum() for name, row in rows.items()}
    sums["tokens"] = loss.new_tensor(len(rows["ratio"]))
    maxima = {name: _largest(rows[name]) for name in ("ratio", "old_abs", "behavior_abs")}
    return LossOutput(loss=loss, sums=sums, maxima=maxima, samples={"ratio": rows["ratio"]})


def _by_sign(inputs: LossInputs, cut: Tensor) -> dict[str, Tensor]:
    """[A] each: 1 where the advantage has this sign, and where it also passes no policy gradient."""
    up, down = inputs.advantages > 0, inputs.advantages < 0
    marks = {"positive": up, "negative": down, "clipped_positive": cut & up, "clipped_negative": cut & down}
    return {name: mark.to(inputs.weights.dtype) for name, mark in marks.items()}


def _diagnostics(inputs: LossInputs) -> dict[str, Tensor]:
    """[A] each. "old" compares the policy with itself at the step's start, "sampler" and "behavior" the latter with the
    engine; ESS is (sum sampler_ratio)^2 / (tokens * sum sampler_ratio_squared)."""
    logprobs, old = inputs.logprobs.detach(), inputs.old_logprobs.detach()
    behavior_gap = -sampler_gap(inputs)  # log mu - log pi_old, on samples of mu
    weight = sampler_ratio(inputs)
    rows = {
        "ratio": bounded_exp(logprobs - old),
        "old_abs": (logprobs - old).abs(),
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
