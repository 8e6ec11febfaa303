"""Builders for the tests of the audit: settings that are made once, estimators that are wrong on purpose, and a slow
twin that enumerates ordered groups and differentiates the logits themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch

from agentrl.objective import Batch, LossInputs, Objective, ObjectiveSpec, load_spec
from agentrl.objective.audit.cast import Cast
from agentrl.objective.audit.draws import Setting, one_task, two_tasks
from agentrl.objective.audit.scoring import scores_of
from agentrl.objective.audit.settings import cast
from agentrl.objective.audit.worlds import DETOUR, EASY, ERRAND, HARD
from agentrl.objective.reward_side.base import Baseline, Credit, Scope
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, turn_rewards
from agentrl.trajectory import Group


@cache
def settings() -> tuple[Setting, ...]:
    """Groups of two in every world."""
    errand, detour, easy, hard = (cast(world) for world in (ERRAND, DETOUR, EASY, HARD))
    return (one_task(errand, 2), one_task(detour, 2), two_tasks(easy, hard, 2))


def fair(**overrides: object) -> ObjectiveSpec:
    """The unbiased method with other choices; `critic` comes by itself where the baseline reads one."""
    critic = {"critic": {"name": "token_head"}} if overrides.get("baseline") == "value" else {}
    return load_spec("rloo", {"ratio": "token", **critic, **overrides})


def own_returns(x: RewardInputs, rewards: Rewards) -> tuple[np.ndarray, np.ndarray]:
    """[K] each turn's reward-to-go, and the rewards of its trajectory before it; by loops."""
    steps, owner = turn_rewards(x.batch, rewards), x.batch.turn_trajectory
    n = len(steps)
    to_go = np.array([sum(steps[j] for j in range(k, n) if owner[j] == owner[k]) for k in range(n)])
    past = np.array([sum(steps[j] for j in range(k) if owner[j] == owner[k]) for k in range(n)])
    return to_go, past


@dataclass(frozen=True, kw_only=True)
class CountsThePast(Credit):
    """Return-to-go and twice the rewards before: noise, no bias, since no action changes what was before it."""

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        to_go, past = own_returns(x, rewards)
        return Leveled(Level.TURN, to_go + 2 * past)


@dataclass(frozen=True, kw_only=True)
class MissesItsOwnReward(Credit):
    """A reward is credited from the next turn on: the action that earned it gets none of it."""

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        return Leveled(Level.TURN, own_returns(x, rewards)[0] - turn_rewards(x.batch, rewards))


@dataclass(frozen=True, kw_only=True)
class ShiftedByAToken(Credit):
    """Each token has the return-to-go that belongs to the token before it."""

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        at_tokens = np.repeat(own_returns(x, rewards)[0], x.batch.turn_lengths)
        starts = np.cumsum(x.batch.action_counts) - x.batch.action_counts
        shifted = np.roll(at_tokens, 1)
        shifted[starts] = 0.0
        return Leveled(Level.ACTION, shifted)


@dataclass(frozen=True)
class OwnFuture(Baseline):
    """What the action itself led to, in part: 0.5 of the return after the turn."""

    scope: ClassVar[Scope] = "own"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        return Leveled(Level.TURN, 0.5 * (own_returns(x, rewards)[0] - turn_rewards(x.batch, rewards)))


@dataclass(frozen=True)
class OwnPast(Baseline):
    """The rewards before the turn: no action from it on changes them."""

    scope: ClassVar[Scope] = "own"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        return Leveled(Level.TURN, own_returns(x, rewards)[1])


@dataclass(frozen=True)
class MeanOverRows(Baseline):
    """The mean over the batch's segments: a trajectory of two segments counts twice, itself among them."""

    scope: ClassVar[Scope] = "batch"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        of_rows = x.batch.rewards[x.batch.row_trajectory]
        return Leveled(Level.TRAJECTORY, np.full(x.batch.n_trajectories, of_rows.mean()))


@dataclass(frozen=True)
class NextState(Baseline):
    """1 where the turn led to a state named "knows": it looks at what the action did."""

    scope: ClassVar[Scope] = "own"

    def __call__(self, x: RewardInputs, rewards: Rewards, credit: Leveled) -> Leveled:
        names = [turn.state_id for turn in x.batch.turns]
        owner = x.batch.turn_trajectory
        out = [
            float(k + 1 < len(names) and owner[k + 1] == owner[k] and names[k + 1] in ("knows", "house"))
            for k in range(len(names))
        ]
        return Leveled(Level.TURN, np.array(out))


def slow_expected_gradient(spec: ObjectiveSpec, of: Cast, size: int) -> np.ndarray:
    """[D] minus the expected gradient of the loss: every ordered group alone, by autograd down to the logits."""
    out = np.zeros(len(of.policies.now.logits))
    for members in itertools.product(range(len(of.episodes)), repeat=size):
        out += np.prod(of.chances[list(members)]) * _slow_estimate(spec, of, members)
    return out


def _slow_estimate(spec: ObjectiveSpec, of: Cast, members: tuple[int, ...]) -> np.ndarray:
    objective, setting = Objective(spec), Setting("slow", (of,), ())
    batch = Batch.from_groups([Group("g", of.name, tuple(of.trajectories[m] for m in members))])
    logits = torch.from_numpy(of.policies.now.logits.copy()).requires_grad_()
    logprobs = torch.stack([lp for m in members for lp in _logprobs(of, m, logits)])
    credited = objective.credit(batch, scores_of(setting, batch, "exact"))
    at = np.flatnonzero(batch.action_mask)

    def pick(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(x, np.float64)[at])

    inputs = LossInputs(
        logprobs=logprobs,
        old_logprobs=logprobs.detach(),
        behavior_logprobs=logprobs.detach(),
        advantages=pick(credited.advantages),
        weights=pick(objective.token_weights(batch)),
        sequence_ids=torch.from_numpy(batch.token_trajectory[at]),
        turn_ids=torch.from_numpy(batch.turn_ids[at]),
    )
    return -torch.autograd.grad(objective.loss(inputs).loss, logits)[0].numpy()


def _logprobs(of: Cast, episode: int, logits: torch.Tensor) -> Iterator[torch.Tensor]:
    policy, world = of.policies.now, of.policies.now.world
    for step in of.episodes[episode]:
        for t, token in enumerate(step.action.tokens):
            row = (step.state, step.action.tokens[:t])
            choices, start = world.rows[row], policy.starts[row]
            yield torch.log_softmax(logits[start : start + len(choices)], 0)[choices.index(token)]
