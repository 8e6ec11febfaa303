"""The episodes of a world as an estimator meets them, each with its exact numbers.

What comes in: a world and the policies that sampled, that the step began with, and that is being trained. What goes
out: one trajectory an episode, with the chance of each, and for each action token what the learner would score.
`Trajectory.seed` is the episode's index here. Knows no estimator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from agentrl.objective.audit.policy import Policy, prefixes
from agentrl.objective.audit.world import KINDS, Step
from agentrl.objective.batch import Float64Array
from agentrl.trajectory import Outcome, Segment, Trajectory, Turn

PROMPT = 2  # tokens
OBSERVATION = 99  # id of every token that the policy did not choose


@dataclass(frozen=True, slots=True)
class Policies:
    """Who did what."""

    sampler: Policy  # mu: the episodes are its
    old: Policy  # the weights the step began with
    now: Policy  # the weights being trained: the gradient is taken here
    reference: Policy  # frozen; the teacher too


Column = Literal["sampler", "old", "now", "reference", "exact", "wrong", "scores"]
"""What is known of an episode's action tokens, [A] each: log-probs (nats) of the four policies; what the exact critic
and one that errs expect before the token, under the old policy; scores [A, D], the gradient of `now`."""


@dataclass(frozen=True, eq=False)
class Cast:
    """All episodes of one task."""

    policies: Policies

    @property
    def name(self) -> str:
        return self.policies.now.world.name

    @cached_property
    def episodes(self) -> tuple[tuple[Step, ...], ...]:
        return self.policies.now.world.episodes

    @cached_property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """One an episode."""
        return tuple(self._trajectory(i, steps) for i, steps in enumerate(self.episodes))

    @cached_property
    def columns(self) -> Mapping[Column, tuple[Float64Array, ...]]:
        """Of each episode."""
        made = [self._columns(steps) for steps in self.episodes]
        return {name: tuple(each[name] for each in made) for name in made[0]}

    @cached_property
    def chances(self) -> Float64Array:
        """[episodes] that the sampler and the environment produce each; they sum to 1."""
        return self._chances(self.policies.sampler)

    @cached_property
    def chances_now(self) -> Float64Array:
        """[episodes] under the policy being trained."""
        return self._chances(self.policies.now)

    def gradient(self, returns: Sequence[float] | Float64Array) -> Float64Array:
        """[D] gradient of sum_e p(e) returns[e], p that of the policy being trained."""
        scores = np.array([scores.sum(0) for scores in self.columns["scores"]])
        out: Float64Array = (self.chances_now * np.asarray(returns)) @ scores
        return out

    @cached_property
    def likeliest(self) -> int:
        """The episode that the old policy plays when it takes its likeliest tokens and gets the likeliest answers."""
        old = self.policies.old

        def rank(i: int) -> tuple[float, ...]:
            each = self.episodes[i]
            return tuple(x for s in each for x in (*old.logprobs(s.state, s.action), s.answer.chance))

        return max(range(len(self.episodes)), key=rank)

    def _chances(self, policy: Policy) -> Float64Array:
        out = [
            np.prod([np.exp(policy.logprobs(s.state, s.action).sum()) * s.answer.chance for s in steps])
            for steps in self.episodes
        ]
        return np.array(out, np.float64)

    def _trajectory(self, index: int, steps: tuple[Step, ...]) -> Trajectory:
        ids = self.policies.now.world.ids
        segments: list[list[tuple[int, float, bool]]] = [[(OBSERVATION, 0.0, False)] * PROMPT]
        turns = []
        for step in steps:
            stream = segments[-1]
            span = slice(len(stream), len(stream) + len(step.action.tokens))
            logprobs = self.policies.sampler.logprobs(step.state, step.action)
            stream += [(token, float(lp), True) for token, lp in zip(step.action.tokens, logprobs, strict=True)]
            rewards = {"step": step.answer.step} | ({"correct": step.answer.correct} if step.answer.to is None else {})
            value = self.policies.old.values[(step.state, ())]
            turns.append(
                Turn(
                    len(segments) - 1,
                    span,
                    rewards,
                    state_id=ids.get(step.state, step.state),
                    void=step.action.void,
                    value=value,
                )
            )
            if step.answer.to is None:
                break
            if step.answer.rewrites:
                segments.append([(OBSERVATION, 0.0, False)] * PROMPT)
            else:
                stream += [(OBSERVATION, 0.0, False)] * step.answer.observed
        total = sum(sum(turn.rewards.values()) for turn in turns)
        outcome = Outcome.TRUNCATED_TURNS if steps[-1].answer.truncated else Outcome.TERMINATED
        made = tuple(map(_segment, segments))
        return Trajectory(self.name, self.name, index, made, tuple(turns), outcome, total, KINDS)

    def _columns(self, steps: tuple[Step, ...]) -> dict[Column, Float64Array]:
        p = self.policies
        rows = [row for s in steps for row in prefixes(s.state, s.action)]
        values = np.array([p.old.values[row] for row in rows])

        def logprobs(policy: Policy) -> Float64Array:
            return np.concatenate([policy.logprobs(s.state, s.action) for s in steps])

        return {
            "sampler": logprobs(p.sampler),
            "old": logprobs(p.old),
            "now": logprobs(p.now),
            "reference": logprobs(p.reference),
            "exact": values,
            "wrong": values + 0.3 * np.array([np.sin(1.0 + 2.0 * p.old.starts[row]) for row in rows]),
            "scores": np.concatenate([p.now.scores(s.state, s.action) for s in steps]),
        }


def _segment(stream: list[tuple[int, float, bool]]) -> Segment:
    ids, logprobs, mask = zip(*stream, strict=True)
    acted = np.array(mask, np.bool_)
    return Segment(
        np.array(ids, np.int64), acted, np.array(logprobs, np.float32), np.where(acted, 0, -1).astype(np.int64)
    )
