"""The objective of a run: what the train loop calls.

What comes in: a spec; then groups, scores and micro-batches. What goes out: a batch, its advantages, its token weights
and its loss. Knows no env, no engine and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentrl.objective.batch import Batch, Credited, Scores
from agentrl.objective.metrics import credit_metrics, selection_metrics
from agentrl.objective.reward_side.credit import Rewards, total_returns
from agentrl.objective.reward_side.groups import group_sizes
from agentrl.objective.reward_side.levels import Level, Leveled, refine, to_tokens
from agentrl.objective.spec import ObjectiveSpec
from agentrl.objective.trajectory_side.inputs import LossInputs, LossOutput
from agentrl.objective.trajectory_side.loss import policy_loss
from agentrl.objective.trajectory_side.select import GroupFilter, TokenFilter, drop_failed
from agentrl.trajectory import FloatArray, Group, IntArray


@dataclass(frozen=True, slots=True)
class Objective:
    """The two sides, put together from a spec's components."""

    spec: ObjectiveSpec

    @property
    def needs_reference(self) -> bool:
        return self.spec.needs_reference

    @property
    def needs_logprobs(self) -> bool:
        return self.spec.needs_logprobs

    @property
    def needs_whole_trajectories(self) -> bool:
        return self.spec.needs_whole_trajectories

    def select(self, groups: Sequence[Group]) -> Batch:
        """The samples that count: without failed trajectories, and past the spec's filters. It may be empty."""
        metrics = selection_metrics(groups)
        kept = drop_failed(groups)
        before = len(kept)
        for each in self.spec.filters:
            if isinstance(each, GroupFilter):
                kept = each.keep(kept)
        batch = Batch.from_groups(kept)
        for each in self.spec.filters:
            if isinstance(each, TokenFilter):
                batch = replace(batch, loss_mask=batch.loss_mask & each.mask(batch))
        return replace(batch, metrics={**metrics, "groups/filtered": float(before - len(kept))})

    def credit(self, batch: Batch, scores: Scores) -> Credited:
        """One advantage for every action token: (credit - baseline) / scale, 0 where the loss mask is false.

        Raises:
            ConfigError: a KL term in the reward needs scores that are absent.
        """
        spec = self.spec
        rewards = Rewards(turns=spec.shape(batch), tokens=spec.kl_in_reward(batch, scores))
        returns = total_returns(batch, rewards)
        credit = spec.credit(batch, rewards)
        baseline, scale = spec.baseline(batch, returns), spec.scale(batch, returns)
        level = max(credit.level, baseline.level, scale.level)
        values = (refine(batch, credit, level) - refine(batch, baseline, level)) / refine(batch, scale, level)
        if spec.needs_groups:
            has_peers = Leveled(Level.TRAJECTORY, (group_sizes(batch) > 1).astype(np.float64))
            values = values * refine(batch, has_peers, level)
        advantages = to_tokens(batch, Leveled(level, values))
        if batch.loss_mask is not batch.action_mask:
            advantages = advantages * batch.loss_mask
        metrics = {**batch.metrics, **credit_metrics(batch, advantages)}
        if rewards.tokens is not None:
            metrics["reward/kl_penalty"] = -float(rewards.tokens.sum()) / max(batch.n_trajectories, 1)
        return Credited(batch=batch, scores=scores, advantages=advantages, metrics=metrics)

    def token_weights(self, batch: Batch, trajectories: IntArray | None = None) -> FloatArray:
        """[N] weights of an update's loss, loss = sum_t w_t l_t; 0 off the loss mask and off its trajectories.

        Args:
            trajectories: indices of the trajectories that the update is about; None: all of them
        """
        counts = batch.loss_counts
        if trajectories is not None:
            inside = np.zeros(batch.n_trajectories, np.bool_)
            inside[trajectories] = True
            counts = np.where(inside, counts, 0)
        weights = np.where(counts > 0, self.spec.aggregate(counts), 0.0)
        out = to_tokens(batch, Leveled(Level.TRAJECTORY, weights))
        return out if batch.loss_mask is batch.action_mask else out * batch.loss_mask

    def loss(self, inputs: LossInputs) -> LossOutput:
        """The loss of one micro-batch; those of all micro-batches of an update sum to the update's loss.

        Raises:
            ConfigError: a regularizer needs a reference that is absent.
        """
        return policy_loss(self.spec, inputs)
