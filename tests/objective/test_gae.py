"""Credits that bootstrap from values: worked numbers, and what they become at the ends of their parameters."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.objective import Scores
from agentrl.objective.reward_side.gae import GaeLength, lambda_returns
from agentrl.trajectory import Group, Trajectory
from tests.objective.marked import Case, marked_groups
from tests.objective.play import episode, objective, steady

SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.sampled_from([0.0, 0.3, 0.9, 1.0])
close = pytest.approx


def one(turns, values) -> Case:
    """A case of one episode; `values` are those of its action tokens, and far off at observations."""
    case = Case.of([Group("g", "t", (episode(turns),))])
    of_tokens = np.full(case.batch.n_tokens, 99.0, np.float32)
    of_tokens[case.batch.action_mask] = values
    return dataclasses.replace(case, scores=Scores(values=of_tokens))


THREE = [(0, 1, 1.0), (0, 1, 2.0), (0, 1, 3.0)]


@pytest.mark.parametrize("name", ["gae_token", "gae_turn"])
@pytest.mark.parametrize(
    ("gamma", "lam", "returns"), [(1.0, 1.0, [6, 5, 3]), (0.5, 1.0, [2.75, 3.5, 3]), (1.0, 0.5, [3.625, 4.25, 3])]
)
def test_t20_returns(name, gamma, lam, returns):
    """Rewards 1 2 3, values .5 1 1.5."""
    got = one(THREE, [0.5, 1, 1.5]).credit(name, gamma=gamma, lam=lam)
    assert got.tolist() == close(returns)


def test_t21_an_observation_token_neither_discounts_nor_bootstraps():
    """Mask 1 0 1. The middle token is skipped, as in verl; SkyRL goes through it and gets 6 in place of 4."""
    case = one([(0, 1, 1.0), (1, 1, 3.0)], [0.5, 1.5])
    returns = case.credit("gae_token", gamma=1.0, lam=1.0)
    assert returns.tolist() == [4, 3]
    assert case.credit("gae_token", gamma=1.0, lam=0.0).tolist() == close([2.5, 3])


def test_t21_advantages_through_the_objective():
    method = objective("ppo", scale="none", kl_in_reward="none", credit={"gamma": 1.0, "lam": 1.0})
    case = one([(0, 1, 1.0), (1, 1, 3.0)], [0.5, 1.5])
    credited = method.credit(case.batch, case.scores)
    assert credited.advantages.tolist() == close([3.5, 0, 1.5])


@pytest.mark.parametrize(
    ("length", "lam"), [(1, 0.0), (10, 0.0), (20, 0.0), (100, 0.8), (1000, 0.98)], ids=lambda x: str(x)
)
def test_t19_lambda_by_length(length, lam):
    """Negative below 20 tokens, hence the clamp."""
    assert GaeLength(alpha=0.05).lams(np.array([length])) == close([lam])


def test_t19_each_trajectory_has_its_own_lambda():
    short, long = episode([(1, 20, 1.0)]), episode([(1, 100, 1.0)], seed=1)
    case = Case.of([Group("g", "t", (short, long))], seed=3)
    got = case.credit("gae_length", alpha=0.05)
    assert got[:20] == close(case.credit("gae_token", lam=0.0)[:20])
    assert got[20:] == close(case.credit("gae_token", lam=0.8)[20:])


TEN = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.parametrize(
    ("lam", "advantages"),
    [
        (1.0, [1.85, 1.75, 1.65, 1.55, 1.45, 0.4, 0.3, 0.2, 0.1, 0]),
        (0.9, [1.295245, 1.32805, 1.3645, 1.405, 1.45, 0.3439, 0.271, 0.19, 0.1, 0]),
    ],
)
def test_t24_bilevel(lam, advantages):
    """RAGEN's example: two turns of five tokens, 1 for each, values .1 to 1."""
    case = one([(1, 5, 1.0), (2, 5, 1.0)], TEN)
    returns = case.credit("gae_bilevel", gamma=1.0, lam=lam, gamma_hi=0.95, lam_hi=lam)
    assert (returns - np.array(TEN)).tolist() == close(advantages, abs=1e-6)
    if lam == 1.0:
        assert returns.tolist() == close([1.95] * 5 + [1.0] * 5, abs=1e-6)


def test_t24_turns_are_told_apart_by_their_ids():
    """A turn that earns nothing is a turn, and so is a last one: RAGEN takes the first for the next one's beginning and
    fails on the second."""
    case = one([(1, 2, 0.0), (1, 1, 2.0), (1, 2, 0.0)], [5, 7, 9, 11, 13])
    got = case.credit("gae_bilevel", gamma=1.0, lam=1.0, gamma_hi=0.5, lam_hi=1.0)
    assert got.tolist() == [1, 1, 2, 0, 0]
    got = case.credit("gae_bilevel", gamma=1.0, lam=1.0, gamma_hi=0.5, lam_hi=0.0)
    assert got.tolist() == [4.5, 4.5, 8.5, 0, 0]  # 0 + .5 * 9, 2 + .5 * 13, 0


def test_the_advantage_of_a_turn_is_against_the_value_before_its_first_token():
    method = objective("turn_ppo", scale="none", credit={"gamma": 1.0, "lam": 0.5})
    case = one([(1, 2, 1.0), (2, 3, 2.0)], [0.5, 8, 1.5, 8, 8])
    credited = method.credit(case.batch, case.scores)
    assert credited.advantages[case.batch.action_mask].tolist() == close([2.25, 2.25, 0.5, 0.5, 0.5])


@steady
@given(marked_groups(), SEEDS, SHARES, SHARES)
def test_with_lambda_1_no_value_is_left_in_the_return(groups, seed, gamma, gamma_hi):
    """So that return - V is reward-to-go - V."""
    case = Case.of(groups, seed, penalised=True)
    assert case.credit("gae_token", gamma=gamma, lam=1.0) == close(case.credit("rtg_token", gamma=gamma))
    assert case.credit("gae_turn", gamma=gamma, lam=1.0) == close(case.credit("rtg_turn", gamma=gamma))
    ones = {"gamma": 1.0, "lam": 1.0, "lam_hi": 1.0}
    assert case.credit("gae_bilevel", **ones, gamma_hi=1.0) == close(case.credit("rtg_token", gamma=1.0))
    plain = Case.of(groups, seed)
    assert plain.credit("gae_bilevel", **ones, gamma_hi=gamma_hi) == close(plain.credit("rtg_turn", gamma=gamma_hi))


@steady
@given(marked_groups(shortest_turn=1), SEEDS, SHARES, SHARES)
def test_with_a_critic_that_knows_nothing_lambda_is_a_discount(groups, seed, gamma, lam):
    case = Case.of(groups, seed, penalised=True)
    case = dataclasses.replace(case, scores=Scores(values=np.zeros(case.batch.n_tokens, np.float32)))
    product = gamma * lam
    assert case.credit("gae_token", gamma=gamma, lam=lam) == close(case.credit("rtg_token", gamma=product))
    assert case.credit("gae_turn", gamma=gamma, lam=lam) == close(case.credit("rtg_turn", gamma=product))


@steady
@given(marked_groups(), SEEDS, SHARES, SHARES)
def test_with_turns_of_one_token_tokens_and_turns_are_the_same(groups, seed, gamma, lam):
    case = Case.of([one_token_turns(group) for group in groups], seed)
    wanted = close(case.credit("gae_token", gamma=gamma, lam=lam))
    assert case.credit("gae_turn", gamma=gamma, lam=lam) == wanted
    assert case.credit("gae_bilevel", gamma=0.3, lam=0.2, gamma_hi=gamma, lam_hi=lam) == wanted


def one_token_turns(group: Group) -> Group:
    def shortened(t: Trajectory) -> Trajectory:
        return episode([(1, 1, sum(turn.rewards.values())) for turn in t.turns], seed=t.seed)

    return dataclasses.replace(group, trajectories=tuple(map(shortened, group.trajectories)))


@pytest.mark.parametrize("name", ["gae_token", "gae_turn", "gae_bilevel"])
@steady
@given(groups=marked_groups(), data=st.data(), seed=SEEDS)
def test_segments_do_not_show(name, groups, data, seed):
    """Histories that were rewritten in the middle of an episode."""
    whole, cut = [], []
    for group in groups:
        for t in group.trajectories:
            turns = [(1, turn.span.stop - turn.span.start, sum(turn.rewards.values())) for turn in t.turns]
            at = data.draw(st.sets(st.integers(0, len(turns) - 1)))
            whole.append(episode(turns, seed=t.seed))
            cut.append(episode(turns, seed=t.seed, new_segment_at=sorted(at)))
    a, b = (Case.of([Group("g", "t", tuple(played))], seed) for played in (whole, cut))
    assert np.array_equal(a.credit(name), b.credit(name))


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_a_return_passes_through_a_turn_without_tokens(gamma):
    """It was asked for no value, so none is there to bootstrap from."""
    case = one([(1, 1, 1.0), (1, 0, 2.0), (1, 1, 4.0)], [0.0, 10.0])
    got = case.credit("gae_turn", gamma=gamma, lam=0.0)
    assert got.tolist() == [1 + gamma * 2 + gamma**2 * 10, 4]
    case = one([(1, 1, 1.0), (1, 0, 2.0)], [0.0])
    assert case.credit("gae_turn", gamma=gamma, lam=0.0).tolist() == [1 + gamma * 2]


def test_penalties_inside_a_turn_reach_the_turns_before_it():
    """Turns of two tokens, a penalty at each first one: what turn 1's costs is known to turn 0."""
    case = one([(1, 2, 1.0), (1, 2, 1.0)], [0.0] * 4)
    case = dataclasses.replace(case, penalties=np.array([-0.5, 0, -0.25, 0]))
    got = case.credit("gae_bilevel", gamma=1.0, lam=1.0, gamma_hi=0.5, lam_hi=1.0)
    assert got.tolist() == [1 + 0.5 * 0.75 - 0.5, 1 + 0.5 * 0.75, 0.75, 1]


def measured(turns: list[tuple[float, float | None]]) -> Case:
    """Turns of one token: reward and measured value."""
    made = episode([(1, 1, reward) for reward, _ in turns])
    with_values = [dataclasses.replace(t, value=v) for t, (_, v) in zip(made.turns, turns, strict=True)]
    return Case.of([Group("g", "t", (dataclasses.replace(made, turns=tuple(with_values)),))])


def test_monte_carlo_values_stand_for_what_follows():
    case = measured([(0.5, 3.0), (0.25, 0.75), (1.0, 0.5)])
    assert case.credit("mc_turn").tolist() == [1.25, 0.75, 1]
    assert case.credit("mc_turn", gamma=0.5).tolist() == [0.875, 0.5, 1]
    advantages = objective("reinforce", credit="mc_turn", baseline="mc_value").credit(case.batch, Scores()).advantages
    assert advantages[case.batch.action_mask].tolist() == [-1.75, 0, 0.5]


def test_where_no_value_was_measured_the_trajectory_is_its_own_rollout():
    assert measured([(0.5, 3.0), (0.25, None), (1.0, 0.5)]).credit("mc_turn", gamma=0.5).tolist() == [0.75, 0.5, 1]
    with pytest.raises(ConfigError, match=r"mc_turn.*rtg_turn"):
        measured([(0.5, None), (0.25, None)]).credit("mc_turn")


def test_lambda_returns_reads_no_value_with_lambda_1():
    nan = np.full(3, np.nan)
    assert lambda_returns(np.ones(3), nan, np.array([2, 1]), 0.5, 1.0).tolist() == [1.5, 1, 1]
    assert np.isnan(lambda_returns(np.ones(3), nan, np.array([2, 1]), 0.5, 0.9)[0])


def test_a_critics_values_must_be_there():
    case = dataclasses.replace(one(THREE, [0, 0, 0]), scores=Scores())
    for name in ("gae_token", "gae_length", "gae_turn", "gae_bilevel"):
        with pytest.raises(ConfigError, match=f"{name}.*values"):
            case.credit(name)


def test_alpha_must_be_positive():
    with pytest.raises(ConfigError, match="alpha"):
        GaeLength(alpha=0.0)
