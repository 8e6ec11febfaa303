"""Which combinations of components, and which runs, cannot be right, and why.

What comes in: a spec (and facts about the run). What goes out: reasons, or a ConfigError that gives them. Each rule
asks what a component is (the scope of a baseline, whether credit varies within a trajectory), never what it is called,
so that new components meet the rules that concern them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError
from agentrl.objective.memory import Remembers

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
    if spec.baseline.of_whole_returns and spec.credit.varies:
        yield (
            "its baseline is one of whole returns, and the credit of turns or tokens differs from them: set credit = "
            "'outcome_broadcast', or another baseline"
        )
    if any(step.rescales for step in spec.shape) and spec.baseline.scope not in ("group", "turn", "state"):
        yield (
            "its shape divides rewards by their spread in the group and nothing is taken off there, so equal rewards "
            "of two groups would count differently: set baseline = 'group_mean'"
        )
    kls = [c for c in spec.kl_in_reward if c.needs_reference]
    if len(kls) > 1:
        yield "two penalties in the reward are for the same reference: keep one of them"
    if any(c.needs_teacher for c in spec.kl_in_reward) and any(t.needs_teacher for t in spec.terms):
        yield "the teacher is counted twice, in the reward and as a term: keep one of them"
    acting = any(c.needs_reference or c.needs_teacher for c in spec.kl_in_reward)
    if spec.credit.parts == "none" and not acting and not spec.terms:
        yield "no reward is credited (credit.parts = 'none') and nothing stands in its place: set credit.parts = 'all'"
    keys = [c.key for c in spec.components if isinstance(c, Remembers)]
    if len(set(keys)) < len(keys):
        yield "two of its components keep their memory under one key and would overwrite each other's: keep one of them"
    columns = [c.column for c in spec.preparing if c.column]
    if len(set(columns)) < len(columns):
        yield "two of its components prepare the same column and would overwrite each other's: keep one of them"
    yield from _scale_faults(spec)


def _scale_faults(spec: ObjectiveSpec) -> Iterator[str]:
    scale, baseline = spec.scale, spec.baseline
    if scale.of_returns and spec.credit.varies:
        yield (
            "scale divides by the spread of whole returns, which can be 0 while the credit of turns or tokens differs: "
            "set scale = 'none' or 'whiten', or credit = 'outcome_broadcast'"
        )
    if scale.scope == "group" and baseline.scope != "group":
        yield (
            "its scale is a statistic of the group and the baseline is not, so what is divided is not centred there "
            "and a group of equal rewards is divided by 0: set baseline = 'group_mean' or 'leave_one_out'"
        )
    if scale.scope == "batch" and scale.of_returns and baseline.scope not in ("batch", "group"):
        yield (
            "a batch of equal rewards has std 0 and would be divided by it uncentred: set baseline = 'batch_mean' or "
            "one of the group, or scale = 'whiten'"
        )
    if scale.scope in ("turn", "state") and baseline.scope != scale.scope:
        yield (
            f"scale divides by the spread among the peers of a {scale.scope} and the baseline compares with others, so "
            f"what is divided is not centred there: set baseline = '{scale.scope}_mean', or scale = 'none'"
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
    if spec.needs_values and spec.credit.bootstraps and spec.credit.discount != spec.critic.discount:
        yield (
            f"the credit discounts by {spec.credit.discount:g} and the critic learns returns discounted by "
            f"{spec.critic.discount:g}: set credit.gamma and critic.gamma to the same number"
        )
    if spec.critic.kind == "turn" and reads and spec.credit.of_tokens:
        yield "a value is read at every token and critic = 'turn_head' has one a turn: set critic = 'token_head'"


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
            "one ratio stands at each token of the trajectory, so a sum over tokens weighs the trajectory by its "
            "length: set aggregate = 'seq_mean_token_mean', or ratio = 'seq_token_sg', which has each token's own "
            "gradient"
        )
    if spec.ratio.per == "turn" and not spec.gate.detaches and spec.tokens_of_turns_vary:
        yield "one ratio for the turn cannot weigh advantages that differ within it: set ratio = 'token'"
    if spec.anchor.of_sampler and not spec.ratio.corrects:
        yield "anchor = 'behavior' is what a ratio compares with, and there is none: set ratio = 'token'"
    if spec.gate.of_tokens and spec.ratio.per != "token":
        yield "its gate bounds each token's own ratio: set ratio = 'token'"
    if spec.gate.of_products and not spec.ratio.is_product:
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
    if spec.needs_unsampled:
        yield (
            f"it reads {spec.needs_unsampled}, which no sampler here gives: choose a credit and a baseline that need "
            "none, such as 'rtg_turn' and 'turn_leave_one_out'"
        )
    if spec.needs_groups and group_size < 2:
        yield (
            f"it compares the episodes of a group and rollout.group_size is {group_size}, so every advantage would be "
            "0: set rollout.group_size >= 2, or a baseline and scale that need no group"
        )
    if group_size < 2 and any(f.needs_groups for f in spec.filters):
        yield f"one of its filters drops every group of {group_size}: set rollout.group_size >= 2 or drop the filter"
    if group_size < 2 and any(step.scope == "group" for step in spec.shape):
        yield f"its shape compares with peers and rollout.group_size is {group_size}: set it to at least 2"
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
