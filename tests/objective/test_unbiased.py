"""Exact enumeration of a tiny two-turn decision process: what each estimator's expected gradient is.

The policy is a table of softmaxes. Turn 1 chooses among two actions, the second of which takes two tokens; turn 2
chooses among two in the state that turn 1 led to. Turn 1 has a process reward, turn 2 the outcome. The expectation over
all groups of G independent episodes is summed, not sampled, and compared with autograd of the exact J.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from agentrl.objective import Objective, Scores
from agentrl.trajectory import Group, Outcome, Segment, Trajectory, Turn
from tests.objective.play import KINDS, loss_inputs, objective

# An episode is its choices, as (state, action) in the order they are made; a state has two actions.
PATHS = [
    *([(0, 0), (1, b)] for b in (0, 1)),
    *([(0, 1), (3, c), (2, b)] for c in (0, 1) for b in (0, 1)),
]
STEP_REWARD = {0: 0.3, 1: -0.2}  # of turn 1's action
OUTCOME = {(0, 0): 0.0, (0, 1): 1.0, (1, 0): 0.7, (1, 1): -0.5}  # of both turns' actions


@dataclass(frozen=True)
class World:
    table: torch.Tensor  # [4, 2] logits, requires grad
    reference: torch.Tensor  # [4, 2] logits

    def logprob(self, path: list[tuple[int, int]], logits: torch.Tensor) -> torch.Tensor:
        """[choices] log-probability of each choice."""
        return torch.stack([torch.log_softmax(logits[s], 0)[a] for s, a in path])


@pytest.fixture
def world() -> World:
    rng = torch.Generator().manual_seed(3)
    table = torch.randn(4, 2, dtype=torch.float64, generator=rng).requires_grad_()
    return World(table, torch.randn(4, 2, dtype=torch.float64, generator=rng))


def total(path: list[tuple[int, int]]) -> float:
    return STEP_REWARD[path[0][1]] + OUTCOME[path[0][1], path[-1][1]]


def play(path: list[tuple[int, int]], group: str) -> Trajectory:
    """The episode as tokens: prompt, turn 1, an observation, turn 2."""
    first = len(path) - 1
    mask = np.array([False, *[True] * first, False, False, True])
    segment = Segment(np.arange(len(mask)), mask, np.where(mask, -0.7, 0).astype(np.float32), np.where(mask, 0, -1))
    turns = (
        Turn(0, slice(1, 1 + first), {"step": STEP_REWARD[path[0][1]]}),
        Turn(0, slice(3 + first, 4 + first), {"correct": OUTCOME[path[0][1], path[-1][1]]}),
    )
    return Trajectory("task", group, 0, (segment,), turns, Outcome.TERMINATED, total(path), KINDS)


def exact_gradient(world: World, beta: float = 0.0) -> np.ndarray:
    """[4, 2] gradient of J = E[R] - beta KL(pi, reference) over whole episodes."""
    value = torch.zeros((), dtype=torch.float64)
    for path in PATHS:
        logprob = world.logprob(path, world.table).sum()
        gap = logprob - world.logprob(path, world.reference).sum()
        value = value + logprob.exp() * (total(path) - beta * gap)
    return torch.autograd.grad(value, world.table)[0].numpy()


def expected_gradient(world: World, method: Objective, size: int) -> np.ndarray:
    """[4, 2] expectation of minus the loss's gradient over all batches of one group of `size` episodes."""
    chance = [world.logprob(path, world.table).sum().exp().item() for path in PATHS]
    out = np.zeros((4, 2))
    for members in itertools.product(range(len(PATHS)), repeat=size):
        paths = [PATHS[m] for m in members]
        batch = method.select([Group("g", "task", tuple(play(path, "g") for path in paths))])
        at = torch.from_numpy(np.flatnonzero(batch.action_mask))
        now, reference = (
            torch.zeros(batch.n_tokens, dtype=torch.float64).index_add(
                0, at, torch.cat([world.logprob(path, logits) for path in paths])
            )
            for logits in (world.table, world.reference)
        )
        old = now.detach().numpy()
        credited = method.credit(batch, Scores(old.astype(np.float32), reference.numpy().astype(np.float32)))
        inputs = loss_inputs(batch, credited.advantages, method.token_weights(batch), now, old)
        gradient = torch.autograd.grad(method.loss(inputs).loss, world.table)[0]
        out -= np.prod([chance[m] for m in members]) * gradient.numpy()
    return out


TOKEN, TURN = {"name": "rtg_token", "gamma": 1.0}, {"name": "rtg_turn", "gamma": 1.0}


@pytest.mark.parametrize("credit", ["outcome_broadcast", TOKEN, TURN])
def test_reinforce_without_baseline_is_unbiased(world, credit):
    method = objective("reinforce", credit=credit, baseline="none")
    for size in (1, 2):
        assert expected_gradient(world, method, size) == pytest.approx(exact_gradient(world), abs=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_reinforce_is_unbiased_up_to_the_factor_1_minus_1_over_n(world, size):
    got = expected_gradient(world, objective("reinforce"), size)
    assert got == pytest.approx((1 - 1 / size) * exact_gradient(world), abs=1e-6)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("overrides", [{}, {"ratio": "token"}, {"credit": TOKEN}, {"credit": TURN}])
def test_rloo_is_unbiased(world, size, overrides):
    got = expected_gradient(world, objective("rloo", **overrides), size)
    assert got == pytest.approx(exact_gradient(world), abs=1e-6)


def test_rloo_with_kl_in_the_reward_is_unbiased_for_the_penalised_return(world):
    method = objective("rloo", kl_in_reward={"beta": 0.3})
    assert expected_gradient(world, method, 2) == pytest.approx(exact_gradient(world, beta=0.3), abs=1e-6)
    assert exact_gradient(world, beta=0.3) != pytest.approx(exact_gradient(world), abs=1e-2)


def test_sequence_ratio_with_token_means_is_unbiased(world):
    method = objective("rloo", ratio="sequence_product", aggregate="seq_mean_token_mean")
    assert expected_gradient(world, method, 2) == pytest.approx(exact_gradient(world), abs=1e-6)


def test_dr_grpo_is_unbiased_up_to_a_constant(world):
    method = objective("dr_grpo", aggregate={"length": 5})
    assert expected_gradient(world, method, 3) == pytest.approx((1 - 1 / 3) / 5 * exact_gradient(world), abs=1e-6)


def test_grpo_is_biased(world):
    got, exact = expected_gradient(world, objective("grpo"), 3).ravel(), exact_gradient(world).ravel()
    cosine = got @ exact / np.linalg.norm(got) / np.linalg.norm(exact)
    assert cosine < 0.99  # dividing by length and std turns it, beside scaling it


def test_reward_to_go_has_less_variance_than_broadcast(world):
    """Past rewards only add noise: for the second turn's logits, the second moment of the estimate falls."""

    def second_moment(credit: object) -> float:
        method = objective("reinforce", credit=credit, baseline="none")
        moment = 0.0
        for path in PATHS:
            batch = method.select([Group("g", "task", (play(path, "g"),))])
            at = np.flatnonzero(batch.action_mask)[-1]
            state, action = path[-1]
            probs = torch.softmax(world.table[state], 0).detach().numpy()
            score = np.eye(2)[action] - probs
            chance = world.logprob(path, world.table).sum().exp().item()
            moment += chance * ((method.credit(batch, Scores()).advantages[at] * score) ** 2).sum()
        return moment

    assert second_moment(TOKEN) < second_moment("outcome_broadcast")
