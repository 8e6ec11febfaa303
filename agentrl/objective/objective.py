"""The objective of a run: what the train loop calls.

What comes in: a spec; then groups, scores and micro-batches. What goes out: a batch, its advantages, its token weights
and its loss. Knows no env, no engine and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentrl.objective.batch import Batch, Credited, Float64Array, Memory, Scores, check_sizes
from agentrl.objective.memory import Finished, Remembers
from agentrl.objective.metrics import credit_metrics, filter_metrics, selection_metrics
from agentrl.objective.reward_side.groups import has_peers
from agentrl.objective.reward_side.levels import Level, Leveled, add, multiply, subtract, to_tokens
from agentrl.objective.reward_side.rewards import Parts, RewardInputs, Rewards, join, token_rewards, total_returns
from agentrl.objective.spec import ObjectiveSpec
from agentrl.objective.trajectory_side.base import GroupFilter, TokenFilter
from agentrl.objective.trajectory_side.inputs import LossInputs, LossOutput
from agentrl.objective.trajectory_side.loss import policy_loss
from agentrl.objective.trajectory_side.select import drop_failed
from agentrl.trajectory import Group, IntArray


@dataclass(frozen=True, slots=True)
class Objective:
    """The two sides, put together from a spec's components."""

    spec: ObjectiveSpec

    def select(self, groups: Sequence[Group], *, version: int | None = None) -> Batch:
        """The samples that count: without failed trajectories, and past the spec's filters. It may be empty.

        Args:
            version: of the weights that are about to be trained, for the staleness; None: the newest that sampled
        """
        valid = kept = drop_failed(groups)
        for each in self.spec.filters:
            if isinstance(each, GroupFilter):
                kept = each.keep(kept)
        batch = Batch.from_groups(kept)
        for each in self.spec.filters:
            if isinstance(each, TokenFilter):
                batch = replace(batch, loss_mask=batch.loss_mask & each.mask(batch))
        return replace(batch, metrics={**selection_metrics(groups), **filter_metrics(valid, batch, version)})

    @property
    def refill(self) -> int:
        """How many groups a step may be played in place of those that are not useful, in multiples of the step's."""
        return max((each.refill for each in self.spec.filters if isinstance(each, GroupFilter)), default=0)

    def useful(self, group: Group) -> bool:
        """Whether the filters that refill keep the group, after what those before them leave of it.

        Filters that compare groups with one another leave a single one alone. A group whose episodes all failed is not
        a filter's to drop.
        """
        kept = drop_failed([group])
        if not kept:
            return True
        for each in self.spec.filters:
            if isinstance(each, GroupFilter) and not each.compares_groups:
                kept = each.keep(kept)
                if each.refill and not kept:
                    return False
        return True

    def credit(self, batch: Batch, scores: Scores, memory: Memory | None = None) -> Credited:
        """One advantage for every action token: (credit - baseline) scaled, plus the terms; 0 off the loss mask.

        Args:
            memory: what `remember` gave after the step before; None at the first step

        Raises:
            ConfigError: a component needs scores, state ids or another fact that is absent.
        """
        check_sizes(batch, scores)
        spec, memory = self.spec, memory or {}
        x = RewardInputs(batch, scores, memory)
        rewards = self._rewards(x)
        main = rewards.only(spec.credit.parts)
        credit = spec.credit(x, main)
        centred = subtract(batch, credit, spec.baseline(x, main, credit))
        if spec.compares_trajectories:
            centred = multiply(batch, centred, has_peers(batch))
        advantage = spec.scale(x, main, centred)
        if spec.compares_trajectories and spec.scale.centres:  # which moves the 0 of those without peers
            advantage = multiply(batch, advantage, has_peers(batch))
        for term in spec.terms:
            advantage = add(batch, advantage, term(x, rewards))
        advantages = to_tokens(batch, advantage)
        if batch.loss_mask is not batch.action_mask:
            advantages = advantages * batch.loss_mask
        metrics = {**batch.metrics, **credit_metrics(batch, main, advantage)}
        return Credited(
            batch=batch,
            scores=scores,
            advantages=advantages,
            metrics=metrics,
            returns=spec.critic.targets(batch, scores, token_rewards(batch, main)) if spec.needs_values else None,
            columns={k: v for each in spec.preparing for k, v in each.columns(batch, scores, advantages).items()},
            memory=memory,
        )

    def remember(self, credited: Credited, metrics: Mapping[str, float]) -> Memory:
        """What the next step's `credit` is to be given.

        Args:
            metrics: of the update that was made on `credited`
        """
        batch, scores, memory = credited.batch, credited.scores, credited.memory
        remembering = [each for each in self.spec.components if isinstance(each, Remembers)]
        if not remembering:
            return {}
        rewards = self._rewards(RewardInputs(batch, scores, memory)).only(self.spec.credit.parts)
        returns = total_returns(batch, rewards)
        step = Finished(batch, scores, returns, memory, {**credited.metrics, **metrics})
        return {each.key: dict(each.remember(step)) for each in remembering}

    def _rewards(self, x: RewardInputs) -> Rewards:
        """The environment's reward parts, shaped, and the penalties at tokens."""
        spec = self.spec
        tokens = join([penalty for each in spec.kl_in_reward if (penalty := each(x)) is not None])
        if not spec.reads_parts:
            return Rewards(x.batch.turn_rewards, tokens)
        parts = Parts.of(x.batch)
        for step in spec.shape:
            parts = step(x, parts)
        return Rewards(parts.sum("all"), tokens, parts)

    def token_weights(self, batch: Batch, trajectories: IntArray | None = None) -> Float64Array:
        """[N] weights of an update's loss, loss = sum_t w_t l_t; 0 off the loss mask and off its trajectories.

        Args:
            trajectories: indices of the trajectories that the update is about; None: all of them
        """
        counts = batch.loss_counts
        if trajectories is not None:
            inside = np.zeros(batch.n_trajectories, np.bool_)
            inside[trajectories] = True
            counts = np.where(inside, counts, 0)
        taking_part = Leveled(Level.TRAJECTORY, (counts > 0).astype(np.float64))
        out = to_tokens(batch, multiply(batch, self.spec.aggregate(batch, counts), taking_part))
        return out if batch.loss_mask is batch.action_mask else out * batch.loss_mask

    def loss(self, inputs: LossInputs) -> LossOutput:
        """The loss of one micro-batch; those of all micro-batches of an update sum to the update's loss.

        Raises:
            ConfigError: a regularizer needs a reference that is absent.
        """
        return policy_loss(self.spec, inputs)
