"""Credits that bootstrap: part of the return is replaced by what was expected of the state it led to.

What comes in: rewards and values, of tokens or of turns. What goes out: lambda-returns. They are returns, not
advantages: the value a step began with is taken off by the slot `baseline` ("value"), and G - V is then the
generalised advantage estimate (1506.02438), since A_t = delta_t + gamma lam A_{t+1} is the same recurrence.

Nothing follows a trajectory's last step, whether it terminated or was truncated: its value is 0. Tokens that the
policy did not sample are no steps: they neither discount nor bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentrl.errors import ConfigError
from agentrl.objective.batch import Batch, Float64Array, Scores
from agentrl.objective.component import at_least, within
from agentrl.objective.reward_side.base import Credit
from agentrl.objective.reward_side.levels import Level, Leveled
from agentrl.objective.reward_side.rewards import RewardInputs, Rewards, token_rewards, turn_rewards
from agentrl.objective.reward_side.scan import discounted_suffix_sums, next_in_run
from agentrl.trajectory import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class GaeToken(Credit):
    """G_t = r_t + gamma ((1 - lam) V_{t+1} + lam G_{t+1}) over the trajectory's action tokens (PPO, 1707.06347).

    verl skips observation tokens as this does; SkyRL bootstraps from the value of each of them.
    """

    gamma: float = 1.0
    lam: float = 0.95
    bootstraps: ClassVar[bool] = True
    needs_values: ClassVar[bool] = True
    of_tokens: ClassVar[bool] = True

    @property
    def discount(self) -> float:
        return self.gamma

    def __post_init__(self) -> None:
        within("credit 'gae_token'", 0.0, 1.0, gamma=self.gamma, lam=self.lam)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        values = token_values("credit 'gae_token'", x.batch, x.scores)
        steps = token_rewards(x.batch, rewards)
        return Leveled(Level.ACTION, lambda_returns(steps, values, x.batch.action_counts, self.gamma, self.lam))


@dataclass(frozen=True, slots=True, kw_only=True)
class GaeLength(Credit):
    """Token GAE with lam_i = max(0, 1 - 1 / (alpha len_i)), len_i the trajectory's action tokens (VAPO, 2504.05118).

    Long trajectories bootstrap less. The formula is negative below 1 / alpha tokens, hence the clamp.
    """

    alpha: float = 0.05
    gamma: float = 1.0
    bootstraps: ClassVar[bool] = True
    needs_values: ClassVar[bool] = True
    of_tokens: ClassVar[bool] = True

    @property
    def discount(self) -> float:
        return self.gamma

    def __post_init__(self) -> None:
        at_least("credit 'gae_length'", 1e-9, alpha=self.alpha)
        within("credit 'gae_length'", 0.0, 1.0, gamma=self.gamma)

    def lams(self, lengths: IntArray) -> Float64Array:
        """lam for each length."""
        return np.maximum(0.0, 1.0 - 1.0 / (self.alpha * np.maximum(lengths, 1)))

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        values = token_values("credit 'gae_length'", x.batch, x.scores)
        lengths = x.batch.action_counts
        lam = np.repeat(self.lams(lengths), lengths)
        return Leveled(Level.ACTION, lambda_returns(token_rewards(x.batch, rewards), values, lengths, self.gamma, lam))


@dataclass(frozen=True, slots=True, kw_only=True)
class GaeTurn(Credit):
    """G_k = r_k + gamma ((1 - lam) V_{k+1} + lam G_{k+1}), V_k the value at turn k's first token.

    GAE whose steps are turns (Turn-PPO, 2512.17008); all tokens of a turn get its G_k. A turn without tokens has no
    value: the return passes through it.
    """

    gamma: float = 1.0
    lam: float = 1.0
    bootstraps: ClassVar[bool] = True
    needs_values: ClassVar[bool] = True

    @property
    def discount(self) -> float:
        return self.gamma

    def __post_init__(self) -> None:
        within("credit 'gae_turn'", 0.0, 1.0, gamma=self.gamma, lam=self.lam)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        batch = x.batch
        values, known = turn_values("credit 'gae_turn'", batch, x.scores)
        steps = turn_rewards(batch, rewards)
        return Leveled(Level.TURN, lambda_returns(steps, values, batch.turn_counts, self.gamma, self.lam, known=known))


@dataclass(frozen=True, slots=True, kw_only=True)
class GaeBilevel(Credit):
    """GAE over turns, then over the tokens of each turn toward its turn's return (RAGEN, 2504.20073).

    H_k = r_k + gamma_hi ((1 - lam_hi) V(end of k+1) + lam_hi H_{k+1}) at each turn's last token, and before it
    G_t = gamma ((1 - lam) V_{t+1} + lam G_{t+1}). Penalties at tokens are added where they stand; those before a turn's
    last token reach the turns before it through gamma_hi. RAGEN takes its turn ends from where a reward is not zero;
    here they come from the turns.
    """

    gamma: float = 1.0
    lam: float = 1.0
    gamma_hi: float = 0.95
    lam_hi: float = 1.0
    needs_values: ClassVar[bool] = True
    of_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within(
            "credit 'gae_bilevel'", 0.0, 1.0, gamma=self.gamma, lam=self.lam, gamma_hi=self.gamma_hi, lam_hi=self.lam_hi
        )

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        batch = x.batch
        values = token_values("credit 'gae_bilevel'", batch, x.scores)
        acting = batch.turn_lengths > 0
        last = (np.cumsum(batch.turn_lengths) - 1)[acting]
        steps = np.zeros(len(values)) if rewards.tokens is None else rewards.tokens.copy()
        ends, end_values = rewards.turns.copy(), np.zeros(len(acting))
        ends[acting] += steps[last]
        end_values[acting] = values[last]
        if rewards.tokens is not None:
            before_end = turn_rewards(batch, rewards) - ends
            ends += self.gamma_hi * next_in_run(before_end, batch.turn_counts)
        of_turns = lambda_returns(ends, end_values, batch.turn_counts, self.gamma_hi, self.lam_hi, known=acting)
        steps[last] = of_turns[acting]
        return Leveled(Level.ACTION, lambda_returns(steps, values, batch.turn_lengths, self.gamma, self.lam))


@dataclass(frozen=True, slots=True, kw_only=True)
class MonteCarloTurn(Credit):
    """Q_k = r_k + gamma V_{k+1}, V the mean return of fresh rollouts from the state (VinePPO, 2410.01679).

    Where the state a turn led to was not rolled out, the trajectory itself is its one rollout: V_{k+1} is Q_{k+1}.
    """

    gamma: float = 1.0
    needs_rollouts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("credit 'mc_turn'", 0.0, 1.0, gamma=self.gamma)

    def __call__(self, x: RewardInputs, rewards: Rewards) -> Leveled:
        values = x.batch.turn_values
        known = ~np.isnan(values)
        if len(values) and not known.any():
            raise ConfigError(
                "credit 'mc_turn' wants turns with a `value` measured by fresh rollouts from their states, and no turn "
                "of the batch has one; let the sampler restore states, or set credit = 'rtg_turn'"
            )
        steps = turn_rewards(x.batch, rewards)
        return Leveled(Level.TURN, lambda_returns(steps, values, x.batch.turn_counts, self.gamma, 0.0, known=known))


def lambda_returns(
    rewards: Float64Array,
    values: FloatArray | Float64Array,
    lengths: IntArray,
    gamma: float,
    lam: float | Float64Array,
    *,
    known: BoolArray | None = None,
) -> Float64Array:
    """G[t] = rewards[t] + gamma ((1 - lam) values[t + 1] + lam G[t + 1]) inside each run; a run's end is worth 0.

    With lam = 1 no value is read.

    Args:
        rewards: [n]
        values: [n] return expected before the step
        lengths: [runs] summing to n
        lam: one for all, or [n]
        known: [n] false where there is no value: G[t] is then rewards[t] + gamma G[t + 1]
    """
    if known is not None:
        values = np.where(known, values, 0.0)
        lam = np.where(next_in_run(known, lengths), lam, 1.0)
    elif isinstance(lam, float) and lam == 1.0:
        return discounted_suffix_sums(rewards, lengths, gamma)
    steps = np.multiply(next_in_run(values, lengths), gamma * (1.0 - lam), dtype=np.float64)
    steps += rewards
    return discounted_suffix_sums(steps, lengths, gamma * lam)


def token_values(owner: str, batch: Batch, scores: Scores) -> FloatArray:
    """[A] return that the critic expects before each action token.

    Raises:
        ConfigError: there is no critic.
    """
    return _values(owner, scores)[batch.action_mask]


def turn_values(owner: str, batch: Batch, scores: Scores) -> tuple[Float64Array, BoolArray]:
    """[K] return that the critic expects at each turn's first action token, and [K] whether it has one; else 0.

    Raises:
        ConfigError: there is no critic.
    """
    known = batch.turn_lengths > 0
    values = np.zeros(len(known))
    values[known] = _values(owner, scores)[batch.turn_starts[known]]
    return values, known


def _values(owner: str, scores: Scores) -> FloatArray:
    if scores.values is None:
        raise ConfigError(
            f"{owner} reads a critic's values and the scores hold none; set critic = 'token_head' or 'turn_head' and "
            "give the learner's `values`"
        )
    return scores.values
