"""Critics: what they are taught, and with which loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import LossInputs, Scores
from agentrl.objective.reward_side.rewards import token_rewards
from agentrl.objective.trajectory_side.critic import NoCritic, TokenHead, TurnHead
from agentrl.trajectory import Group
from tests.objective import twin_credit as twin
from tests.objective.marked import Case, marked_groups
from tests.objective.play import episode, objective, steady, tokens_loss

SEEDS = st.integers(0, 2**32 - 1)
NAN = float("nan")
close = pytest.approx


def inputs(
    values: Sequence[float], old: Sequence[float], returns: Sequence[float], *, weights: Sequence[float] | None = None
) -> LossInputs:
    def tensor(x: Sequence[float]) -> torch.Tensor:
        return torch.tensor(x, dtype=torch.float64)

    n = len(values)
    made = tokens_loss([-1.0] * n, [-1.0] * n, [0.0] * n, weights=weights)
    return dataclasses.replace(
        made, values=tensor(values).requires_grad_(), old_values=tensor(old), returns=tensor(returns)
    )


def mean_loss(critic, made: LossInputs) -> float:
    return critic.loss(made).mean().item()


@pytest.mark.parametrize("head", [TokenHead, TurnHead])
def test_t35_clipped_value_loss(head):
    """Values 1 2 3 now, .5 2.5 1 before, return 2: of the squares 1.69, .09 and 1, which the clip makes of 1, 0, 1."""
    made = inputs([1, 2, 3], [0.5, 2.5, 1], [2, 2, 2])
    assert mean_loss(head(coef=1.0, clip=0.2), made) == close(0.4633, abs=1e-4)
    assert mean_loss(head(coef=0.1, clip=0.2), made) == close(0.04633, abs=1e-5)


def test_the_larger_of_the_two_errors_counts():
    """The other way round: 2 before, returns .5 2.5 1; the clipped values are 1.8, 2 and 2.2."""
    made = inputs([1, 2, 3], [2, 2, 2], [0.5, 2.5, 1])
    per_token = TokenHead(coef=2.0, clip=0.2).loss(made)
    assert per_token.tolist() == close([1.69, 0.25, 4])


def test_a_value_that_has_moved_far_enough_gets_no_gradient():
    """Towards its return by .1, by .3, and away from it by .3, where the clip does not protect."""
    made = inputs([0.1, 0.3, -0.3], [0, 0, 0], [1, 1, 1])
    TokenHead(coef=1.0, clip=0.2).loss(made).sum().backward()
    assert made.values.grad.tolist() == close([-0.9, 0, -1.3])


def test_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    made = inputs(*rng.normal(size=(3, 12)).tolist())
    made = dataclasses.replace(made, returns=torch.where(torch.arange(12) % 3 == 0, NAN, made.returns))
    critic = TokenHead(coef=0.7, clip=0.3)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return critic.loss(dataclasses.replace(made, values=values))

    assert torch.autograd.gradcheck(loss, made.values)


@steady
@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=6), st.sampled_from([0.0, 0.2, 5.0]))
def test_the_loss_agrees_with_the_formula(rows, clip):
    now, old, returns = (list(column) for column in zip(*rows, strict=True))
    got = TokenHead(coef=0.5, clip=clip).loss(inputs(now, old, returns)).tolist()
    wanted = [
        0.25 * max((v - g) ** 2, (min(max(v, o - clip), o + clip) - g) ** 2)
        for v, o, g in zip(now, old, returns, strict=True)
    ]
    assert got == close(wanted)


def test_where_it_is_not_asked_there_is_neither_loss_nor_gradient():
    made = inputs([5, 1, 5], [0, 0.9, 0], [NAN, 2, NAN])
    loss = TurnHead(coef=2.0, clip=0.2).loss(made)
    assert loss.tolist() == close([0, 1, 0])
    loss.sum().backward()
    assert made.values.grad.tolist() == close([0, -2, 0])


def test_what_is_missing_is_said():
    made = inputs([1], [1], [1])
    for name in ("values", "old_values", "returns"):
        with pytest.raises(ConfigError, match=r"token_head.*value head"):
            TokenHead().loss(dataclasses.replace(made, **{name: None}))
    case = Case.of([Group("g", "t", (episode([(1, 1, 1.0)]),))])
    for critic in (TokenHead(), TurnHead()):
        with pytest.raises(ConfigError, match=r"critic.*values"):
            critic.targets(case.batch, Scores(), np.ones(1))


def test_nobody_is_taught_nothing():
    case = Case.of([Group("g", "t", (episode([(1, 1, 1.0)]),))])
    assert NoCritic().targets(case.batch, case.scores, np.ones(1)) is None
    assert NoCritic().loss(inputs([1], [1], [1])) is None


@pytest.mark.parametrize("head", [TokenHead, TurnHead])
@pytest.mark.parametrize(("name", "value"), [("coef", -1.0), ("clip", -0.1), ("gamma", 1.1), ("lam", -0.5)])
def test_wrong_parameters_are_refused(head, name, value):
    with pytest.raises(ConfigError, match=name):
        head(**{name: value})


def targets(critic, case: Case) -> np.ndarray:
    """[N]"""
    return critic.targets(case.batch, case.scores, token_rewards(case.batch, case.rewards))


@steady
@given(marked_groups(), SEEDS, st.sampled_from([1.0, 0.9]), st.sampled_from([1.0, 0.8, 0.0]))
def test_a_token_head_is_taught_the_return_of_each_action_token(groups, seed, gamma, lam):
    case = Case.of(groups, seed, penalised=True)
    got = targets(TokenHead(gamma=gamma, lam=lam), case)
    wanted = [x for group in case.steps for steps in group for x in twin.gae_token(steps, gamma, lam)]
    assert got[case.batch.action_mask].tolist() == close(wanted, rel=1e-5, abs=1e-5)
    assert np.isnan(got[~case.batch.action_mask]).all()


@steady
@given(marked_groups(shortest_turn=1), SEEDS, st.sampled_from([1.0, 0.9]), st.sampled_from([1.0, 0.8, 0.0]))
def test_a_turn_head_is_taught_the_return_of_each_turn_at_its_first_token(groups, seed, gamma, lam):
    case = Case.of(groups, seed, penalised=True)
    got = targets(TurnHead(gamma=gamma, lam=lam), case)
    wanted = [x for group in case.steps for steps in group for x in twin.gae_turn(steps, gamma, lam)]
    assert got[case.batch.turn_starts].tolist() == close(wanted, rel=1e-5, abs=1e-5)
    assert np.count_nonzero(~np.isnan(got)) == len(case.batch.turn_starts)


def test_a_turn_without_tokens_is_not_asked_and_its_reward_goes_to_the_action_before():
    case = Case.of([Group("g", "t", (episode([(1, 2, 1.0), (1, 0, 2.0), (1, 1, 4.0), (1, 0, 8.0)]),))])
    got = targets(TurnHead(), case)
    assert np.flatnonzero(~np.isnan(got)).tolist() == [1, 5]
    assert got[[1, 5]].tolist() == [15, 12]


def test_it_is_taught_what_is_credited():
    """Of the outcome alone, where only that is credited; masked trajectories have targets and no weight."""
    made = episode([(1, 1, 0.0), (1, 1, 0.0)])
    rewards = ({"step": 0.25}, {"step": 0.5, "correct": 1.0})
    turns = [dataclasses.replace(t, rewards=r) for t, r in zip(made.turns, rewards, strict=True)]
    made = dataclasses.replace(made, turns=tuple(turns), reward=1.75)
    for parts, wanted in (("all", [1.75, 1.5]), ("outcome", [1, 1])):
        method = objective("ppo", kl_in_reward="none", credit={"parts": parts}, critic={"gamma": 1.0, "lam": 1.0})
        batch = method.select([Group("g", "t", (made,))])
        credited = method.credit(batch, Scores(values=np.zeros(batch.n_tokens, np.float32)))
        assert credited.returns[batch.action_mask].tolist() == wanted


def test_the_critics_loss_is_part_of_the_objectives():
    method = objective("ppo", kl_in_reward="none", regularize="none", critic={"coef": 1.0, "clip": 0.2})
    made = inputs([1, 2, 3], [0.5, 2.5, 1], [2, 2, 2], weights=[0.5, 0.5, 0])
    out = method.loss(made)
    assert out.loss.item() == close(0.25 * (1.69 + 0.09))
    assert out.sums["critic_loss"].item() == close(0.5 * (1.69 + 0.09))
    out.loss.backward()
    assert made.values.grad.tolist()[2] == 0
