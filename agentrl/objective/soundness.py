"""Which combinations of components, and which runs, cannot be right, and why.

What comes in: a spec (and facts about the run). What goes out: reasons, or a ConfigError that gives them. Each rule
asks what a component is (the scope of a baseline, whether credit varies within a trajectory), never what it is called,
so that new components meet the rules that concern them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError
from agentrl.objective.trajectory_side.select import ZeroVarianceDrop

if TYPE_CHECKING:
    from agentrl.objective.spec import ObjectiveSpec


def refuse(name: str, faults: Iterable[str]) -> None:
    """Raise if there are faults.

    Raises:
        ConfigError: all of them, in one line.
    """
    reasons = list(faults)
    if reasons:
        raise ConfigError(f"objective {name!r} is unsound: {'; '.join(reasons)}")


def combination_faults(spec: ObjectiveSpec) -> Iterator[str]:
    """Why these components do not go together."""
    if spec.gate.needs_ratio and not spec.ratio.corrects:
        yield "its gate bounds a ratio and there is none (ratio = 'none'): set ratio = 'token' or gate = 'none'"
    if spec.scale.of_returns and spec.credit.varies:
        yield (
            "scale divides by the spread of whole returns, which can be 0 while the credit of turns or tokens differs: "
            "set scale = 'none' or credit = 'outcome_broadcast'"
        )
    if spec.scale.scope == "group" and spec.baseline.scope != "group":
        yield (
            "a group of equal rewards has std 0 and would be divided by it uncentred: with a group scale use baseline "
            "= 'group_mean' or 'leave_one_out'"
        )
    if spec.scale.scope == "batch" and spec.baseline.scope == "none" and not spec.scale.centres:
        yield (
            "a batch of equal rewards has std 0 and would be divided by it uncentred: set a baseline, or scale = 'none'"
        )
    if (spec.ratio.of_sequence or spec.gate.of_sequence) and spec.advantages_vary:
        yield (
            "one ratio for the trajectory cannot weigh advantages that differ within it: set credit = "
            "'outcome_broadcast' or ratio = 'token'"
        )
    if (spec.ratio.of_sequence or spec.gate.of_sequence) and not spec.aggregate.averages_tokens:
        yield (
            "the trajectory's ratio stands at each of its tokens, so summing tokens counts it once for each of them: "
            "set aggregate = 'seq_mean_token_mean'"
        )


def run_faults(spec: ObjectiveSpec, group_size: int, updates_per_batch: int, has_reference: bool) -> Iterator[str]:
    """Why this objective is wrong in this run."""
    if spec.needs_groups and group_size < 2:
        yield (
            f"it compares the episodes of a group and rollout.group_size is {group_size}, so every advantage would be "
            "0: set rollout.group_size >= 2, or a baseline and scale that need no group"
        )
    if group_size < 2 and any(isinstance(f, ZeroVarianceDrop) for f in spec.filters):
        yield f"zero_variance_drop drops every group of {group_size}: set rollout.group_size >= 2 or drop the filter"
    if updates_per_batch > 1 and not spec.ratio.corrects:
        yield (
            f"without a ratio the gradient is right for the first of {updates_per_batch} updates only: set ratio = "
            "'token', or learner.epochs = 1 and learner.minibatches = 1"
        )
    if spec.needs_reference and not has_reference:
        yield (
            "a KL term needs a frozen reference and the learner keeps none: give it one, or set the coefficient "
            "(regularize.coef, kl_in_reward.beta) to 0"
        )
