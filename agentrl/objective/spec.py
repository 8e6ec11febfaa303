"""An objective as data: one component for each slot of the two sides.

What comes in: components. What goes out: a checked `ObjectiveSpec`. Loads no torch. The slots run in
the order of `SLOTS`: filters, then the reward side (one advantage for every action token), then the rest of the
trajectory side (one loss).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentrl.objective import soundness
from agentrl.objective.component import describe
from agentrl.objective.reward_side.base import Baseline, Credit, KlInReward, Scale, Shape, Term
from agentrl.objective.reward_side.baseline import BASELINES
from agentrl.objective.reward_side.credit import CREDITS
from agentrl.objective.reward_side.kl import KLS_IN_REWARD
from agentrl.objective.reward_side.scale import SCALES
from agentrl.objective.reward_side.shape import SHAPES
from agentrl.objective.reward_side.term import TERMS
from agentrl.objective.trajectory_side.aggregate import AGGREGATES
from agentrl.objective.trajectory_side.anchor import ANCHORS
from agentrl.objective.trajectory_side.base import (
    Aggregate,
    Anchor,
    Critic,
    Gate,
    GroupFilter,
    Mismatch,
    Prepares,
    Ratio,
    Regularizer,
    TokenFilter,
)
from agentrl.objective.trajectory_side.critic import CRITICS
from agentrl.objective.trajectory_side.gate import GATES
from agentrl.objective.trajectory_side.mismatch import MISMATCHES
from agentrl.objective.trajectory_side.ratio import RATIOS
from agentrl.objective.trajectory_side.regularize import REGULARIZERS
from agentrl.objective.trajectory_side.select import FILTERS

SLOTS: Mapping[str, Mapping[str, type]] = {
    "filters": FILTERS,
    "shape": SHAPES,
    "kl_in_reward": KLS_IN_REWARD,
    "credit": CREDITS,
    "baseline": BASELINES,
    "scale": SCALES,
    "terms": TERMS,
    "anchor": ANCHORS,
    "ratio": RATIOS,
    "gate": GATES,
    "mismatch": MISMATCHES,
    "regularize": REGULARIZERS,
    "critic": CRITICS,
    "aggregate": AGGREGATES,
}
REWARD_SLOTS = ("shape", "kl_in_reward", "credit", "baseline", "scale", "terms")  # the others: trajectory side
LIST_SLOTS = ("filters", "shape", "kl_in_reward", "terms", "mismatch", "regularize")  # any number, run in order
DEFAULTS: Mapping[str, Any] = {  # what a preset's file need not say
    **{slot: [] for slot in LIST_SLOTS},
    "scale": "none",
    "anchor": "old",
    "critic": "none",
}
ABOUT = ("name", "title", "formula", "side", "addresses", "source", "in_frame")
SIDES = ("reward", "trajectory", "both", "outside")


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """A point in the product of the two sides. Making one refuses combinations that cannot be right.

    Raises:
        ConfigError: the components do not go together; the message gives the reason.
    """

    name: str
    title: str
    formula: str
    side: str  # which side the method is about: one of SIDES
    addresses: str  # the failure it is an answer to
    source: str  # the paper
    in_frame: bool  # optimises E[R(tau)]
    filters: tuple[GroupFilter | TokenFilter, ...]
    shape: tuple[Shape, ...]
    kl_in_reward: tuple[KlInReward, ...]
    credit: Credit
    baseline: Baseline
    scale: Scale
    terms: tuple[Term, ...]
    anchor: Anchor
    ratio: Ratio
    gate: Gate
    mismatch: tuple[Mismatch, ...]
    regularize: tuple[Regularizer, ...]
    critic: Critic
    aggregate: Aggregate

    def __post_init__(self) -> None:
        soundness.refuse(self.name, soundness.combination_faults(self))

    @property
    def components(self) -> tuple[Any, ...]:
        """Every component, in the order of the slots."""
        values = [(slot, getattr(self, slot)) for slot in SLOTS]
        return tuple(c for slot, value in values for c in (value if slot in LIST_SLOTS else (value,)))

    @property
    def preparing(self) -> tuple[Prepares, ...]:
        """The components that read the whole step before it is cut."""
        return tuple(c for c in self.components if isinstance(c, Prepares))

    @property
    def needs_reference(self) -> bool:
        """Log-probs of a frozen reference are read."""
        return any(k.needs_reference for k in self.kl_in_reward) or any(r.needs_reference for r in self.regularize)

    @property
    def needs_teacher(self) -> bool:
        """Log-probs of a teacher are read."""
        return any(k.needs_teacher for k in self.kl_in_reward) or any(t.needs_teacher for t in self.terms)

    @property
    def needs_logprobs(self) -> bool:
        """The policy's own log-probs are read before the update, so they are needed even for a single one."""
        in_reward = any(c.needs_reference or c.needs_teacher for c in self.kl_in_reward)
        return in_reward or any(t.needs_teacher for t in self.terms) or any(c.needs_logprobs for c in self.preparing)

    @property
    def needs_values(self) -> bool:
        """There is a critic: the learner keeps a head that predicts returns."""
        return self.critic.kind != "none"

    @property
    def needs_entropy(self) -> bool:
        """The loss reads the entropy of the policy with its gradient."""
        return any(r.needs_entropy for r in self.regularize)

    @property
    def needs_greedy(self) -> bool:
        """Each group comes with one greedy rollout of its task."""
        return self.baseline.needs_greedy

    @property
    def reads_parts(self) -> bool:
        """The named parts of the rewards are told apart."""
        return bool(self.shape) or self.credit.parts != "all" or any(term.reads_parts for term in self.terms)

    @property
    def needs_states(self) -> bool:
        """State ids of turns are read."""
        reading = (self.credit.needs_states, self.baseline.needs_states, self.scale.scope == "state")
        return any(reading) or any(term.needs_states for term in self.terms)

    @property
    def needs_unsampled(self) -> str:
        """What is read and only a sampler of another kind could give; "" where nothing is."""
        if self.credit.needs_nodes or any(term.needs_nodes for term in self.terms):
            return "node ids of branched rollouts"
        if self.credit.needs_rollouts or self.baseline.needs_rollouts:
            return "values of turns, from fresh rollouts out of their states"
        return ""

    @property
    def minds_the_sampler(self) -> bool:
        """The difference between the policy and what sampled is corrected for, the ratio's or a correction's doing."""
        return bool(self.mismatch) or (self.anchor.of_sampler and self.ratio.corrects)

    @property
    def tokens_of_turns_vary(self) -> bool:
        """Tokens of one turn can have different advantages."""
        return self.credit.of_tokens or any(term.of_tokens for term in self.terms)

    @property
    def advantages_vary(self) -> bool:
        """Tokens of one trajectory can have different advantages."""
        return self.credit.varies or any(term.varies for term in self.terms)

    @property
    def compares_trajectories(self) -> bool:
        """Trajectories are compared within their group; one alone in its group gets advantage 0."""
        return "group" in (self.baseline.scope, self.scale.scope)

    @property
    def needs_groups(self) -> bool:
        """Whatever is credited is compared with peers in the group: with groups of one, every advantage is 0."""
        return not {self.baseline.scope, self.scale.scope}.isdisjoint({"group", "turn", "state"})

    @property
    def needs_whole_trajectories(self) -> bool:
        """All action tokens of a trajectory must be in one micro-batch."""
        mixing = (self.ratio.whole, self.gate.whole, *(m.whole for m in self.mismatch))
        return any(mixing) or any(r.whole for r in self.regularize)

    def check(
        self, *, group_size: int, updates_per_batch: int = 1, has_reference: bool = True, has_teacher: bool = False
    ) -> None:
        """Refuse a run that this objective cannot be right in.

        Args:
            group_size: episodes a task
            updates_per_batch: optimiser updates on one step's batch (epochs x minibatches)
            has_reference: whether the learner keeps a frozen reference
            has_teacher: whether the learner was given a teacher

        Raises:
            ConfigError: the message gives the reason and what to change.
        """
        soundness.refuse(
            self.name, soundness.run_faults(self, group_size, updates_per_batch, has_reference, has_teacher)
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they would stand in a preset's file."""
        values = vars(self)
        out: dict[str, Any] = {key: values[key] for key in ABOUT}
        for slot, table in SLOTS.items():
            parts = [describe(c, table) for c in (values[slot] if slot in LIST_SLOTS else (values[slot],))]
            out[slot] = parts if slot in LIST_SLOTS else parts[0]
        return out
