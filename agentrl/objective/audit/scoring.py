"""What a learner would hand to an objective, and what the objective sets out to maximise, both exactly.

What comes in: a setting and a spec. What goes out: scores of a batch, the memory that a step leaves, and the true
gradient. Knows no estimate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

import numpy as np

from agentrl.objective.audit.cast import Column
from agentrl.objective.audit.draws import Setting
from agentrl.objective.batch import Batch, Float64Array, Memory, Scores
from agentrl.objective.objective import Objective
from agentrl.objective.reward_side.baseline import NoBaseline
from agentrl.objective.reward_side.credit import OutcomeBroadcast
from agentrl.objective.reward_side.scale import NoScale
from agentrl.objective.spec import ObjectiveSpec
from agentrl.objective.trajectory_side.critic import NoCritic
from agentrl.trajectory import FloatArray, Group

CriticKind = Literal["exact", "wrong"]
DRIFT = 0.03  # mean |log pi - log pi_old| of the step that is remembered, nats


def scores_of(setting: Setting, batch: Batch, critic: CriticKind) -> Scores:
    """What a learner would say of a batch; in float64, so that no verdict is limited by rounding."""

    def placed(name: Column) -> FloatArray:
        out = np.zeros(batch.n_tokens)
        out[batch.action_mask] = setting.column(batch, name)
        return cast(FloatArray, out)

    return Scores(placed("old"), placed("reference"), placed("reference"), placed(critic))


def memory_after_a_step(spec: ObjectiveSpec, setting: Setting) -> Memory:
    """What is remembered of a step in which each task's every episode was met once."""
    batch = Batch.from_groups([Group(each.name, each.name, each.trajectories) for each in setting.casts])
    credited = Objective(_rewards_alone(spec)).credit(batch, scores_of(setting, batch, "exact"))
    return Objective(spec).remember(credited, {"old_abs": DRIFT})


def true_gradient(spec: ObjectiveSpec, setting: Setting) -> Float64Array:
    """[D] gradient of the mean over tasks of E[R].

    R is the return after the spec's shaping and after KL penalties in the reward, since they are part of what it sets
    out to maximise. A shape that depends on the peers is no part of any E[R], so R is then taken before it.
    """
    alone = Objective(_rewards_alone(spec))
    memory = memory_after_a_step(spec, setting)
    returns = []
    for each in setting.casts:
        batch = Batch.from_groups([Group(each.name, each.name, each.trajectories)])
        advantages = alone.credit(batch, scores_of(setting, batch, "exact"), memory).advantages[batch.action_mask]
        returns.append(advantages[np.cumsum(batch.action_counts) - batch.action_counts])  # at each first token
    return setting.gradient(returns)


def _rewards_alone(spec: ObjectiveSpec) -> ObjectiveSpec:
    """The same rewards, each trajectory's whole return at each of its tokens, and nothing else."""
    return replace(
        spec,
        filters=(),
        shape=tuple(s for s in spec.shape if s.scope == "none"),
        credit=OutcomeBroadcast(),
        baseline=NoBaseline(),
        scale=NoScale(),
        terms=(),
        critic=NoCritic(),
        regularize=(),
    )
