"""Which combinations of components, and which runs, cannot be right, and why.

What comes in: a spec (and facts about the run). What goes out: reasons, or a ConfigError that gives them. Each rule
asks what a component is (the scope of a baseline, whether credit varies within a trajectory), never what it is called,
so that new components meet the rules that concern them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError

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
    yield from _reward_side_faults(spec)
    yield from _critic_faults(spec)
    yield from _trajectory_side_faults(spec)


def _reward_side_faults(spec: ObjectiveSpec) -> Iterator[str]:
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
    if spec.scale.scope in ("turn", "state") and spec.baseline.scope != spec.scale.scope:
        yield (
            f"scale divides by the spread among the peers of a {spec.scale.scope} and the baseline compares with "
            f"others, so what is divided is not centred there: set baseline = '{spec.scale.scope}_mean', or "
            "scale = 'none'"
        )


def _critic_faults(spec: ObjectiveSpec) -> Iterator[str]:
    reads = spec.credit.needs_values or spec.baseline.needs_values
    if reads and not spec.needs_values:
        yield "its credit or baseline reads a critic's values and there is no critic: set critic = 'token_head'"
    if spec.needs_values and not reads:
        yield (
            "it has a critic whose values nothing reads: set baseline = 'value' (and a credit that bootstraps, such as "
            "'gae_token'), or critic = 'none'"
        )
    if spec.critic.kind == "turn" and spec.credit.needs_token_values:
        yield "its credit reads a value at every token and critic = 'turn_head' has one a turn: set 'token_head'"


def _trajectory_side_faults(spec: ObjectiveSpec) -> Iterator[str]:
    if spec.gate.needs_ratio and not spec.ratio.corrects:
        yield "its gate bounds a ratio and there is none (ratio = 'none'): set ratio = 'token' or gate = 'none'"
    of_sequence = (spec.ratio.of_sequence or spec.gate.of_sequence) and not spec.gate.detaches
    if of_sequence and spec.advantages_vary:
        yield (
            "one ratio for the trajectory cannot weigh advantages that differ within it: set credit = "
            "'outcome_broadcast' (and no terms), or ratio = 'token' or 'seq_token_sg'"
        )
    if of_sequence and not spec.aggregate.averages_tokens:
        yield (
            "the trajectory's ratio stands at each of its tokens, so summing tokens counts it once for each of them: "
            "set aggregate = 'seq_mean_token_mean'"
        )
    if spec.gate.of_tokens and spec.ratio.per != "token":
        yield "its gate bounds each token's own ratio: set ratio = 'token'"
    if spec.gate.of_sequence and not spec.gate.of_tokens and spec.ratio.per != "sequence":
        yield "its gate bounds the ratio of the whole trajectory: set ratio = 'sequence_product'"
    correcting = [m for m in spec.mismatch if m.corrects_sampler]
    if spec.anchor.of_sampler and correcting:
        yield (
            "the ratio is taken against the sampler (anchor = 'behavior'), so a mismatch correction would count the "
            "sampler twice: set anchor = 'old' or mismatch = []"
        )
    if len(correcting) > 1:
        yield "two mismatch corrections weigh the same tokens for the same gap: keep one of them"
    if spec.gate.of_sequence and any(m.whole and m.corrects_sampler for m in spec.mismatch):
        yield (
            "its gate weighs whole trajectories already, and so does the mismatch correction: set mismatch = "
            "'token_tis', or none"
        )


def run_faults(
    spec: ObjectiveSpec, group_size: int, updates_per_batch: int, has_reference: bool, has_teacher: bool
) -> Iterator[str]:
    """Why this objective is wrong in this run."""
    if spec.needs_groups and group_size < 2:
        yield (
            f"it compares the episodes of a group and rollout.group_size is {group_size}, so every advantage would be "
            "0: set rollout.group_size >= 2, or a baseline and scale that need no group"
        )
    if group_size < 2 and any(f.needs_groups for f in spec.filters):
        yield f"one of its filters drops every group of {group_size}: set rollout.group_size >= 2 or drop the filter"
    if group_size < 2 and any(term.scope != "own" for term in spec.terms):
        yield f"one of its terms compares with peers and rollout.group_size is {group_size}: set it to at least 2"
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
    if spec.needs_teacher and not has_teacher:
        yield "it reads a teacher's log-probs and the learner has no teacher: set learner.teacher to a checkpoint"
    if has_teacher and not spec.needs_teacher:
        yield "learner.teacher is set and nothing in it reads a teacher: remove the setting or choose another preset"
