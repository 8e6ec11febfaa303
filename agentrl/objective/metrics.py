"""What a step's samples look like: as played, after the filters, and after credit.

What comes in: groups, or a batch and its advantages. What goes out: named numbers, each name once. Knows no loss: what
an update measures is in `trajectory_side.loss`.

A trajectory is *right* when it succeeded: its outcome parts sum to at least 1, as everywhere. Shares of groups are
over groups with at least two valid trajectories; a group of zero variance is *all solved* when all its trajectories
are right and *all failed* when all are wrong. Lengths are sampled tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from agentrl.objective.batch import Batch, Float64Array
from agentrl.objective.reward_side.levels import Level, Leveled, sums_by, sums_of_runs
from agentrl.objective.reward_side.rewards import Rewards, total_returns
from agentrl.objective.trajectory_side.aggregate import turn_loss_counts
from agentrl.objective.trajectory_side.select import reward_variance, zero_variance
from agentrl.trajectory import BoolArray, Group, Trajectory, succeeded


def selection_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Of all that was played, whatever the filters make of it.

    Returns:
        groups, episodes (played), failed (share of episodes), sampled_tokens (of all, greedy ones too), greedy_reward.
        Of valid episodes: reward and reward_std, part/<name> (mean sum of a reward part), success, truncated (shares),
        turns, tokens, action_tokens (means), length/right and length/wrong, void_turns (share of turns). Of groups:
        groups/zero_variance, groups/all_solved, groups/all_failed (shares), groups/std (mean).
    """
    members = [t for group in groups for t in group.trajectories]
    valid = [t for t in members if t.reward is not None]
    lengths = np.array([t.n_action_tokens for t in valid], np.float64)
    out = {
        "groups": float(len(groups)),
        "episodes": float(len(members)),
        "failed": 1.0 - len(valid) / len(members) if members else 0.0,
        "sampled_tokens": float(sum(t.n_action_tokens for group in groups for t in group.played)),
    }
    greedy = [group.greedy.reward for group in groups if group.greedy and group.greedy.reward is not None]
    if greedy:
        out["greedy_reward"] = float(np.mean(greedy))
    if not valid:
        return out
    right = np.array([succeeded(t) for t in valid])
    rewards = np.array([t.reward for t in valid], np.float64)
    turns = [turn for t in valid for turn in t.turns]
    out |= {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "success": float(right.mean()),
        "truncated": float(np.mean([t.outcome.truncated for t in valid])),
        "turns": len(turns) / len(valid),
        "tokens": float(np.mean([t.n_tokens for t in valid])),
        "action_tokens": float(lengths.mean()),
        "void_turns": sum(turn.void for turn in turns) / max(len(turns), 1),
    }
    if right.any():
        out["length/right"] = float(lengths[right].mean())
    if not right.all():
        out["length/wrong"] = float(lengths[~right].mean())
    return out | dict(_part_means(valid)) | _group_shares(groups)


def filter_metrics(valid: Sequence[Group], batch: Batch, version: int | None = None) -> dict[str, float]:
    """Of what the filters left.

    Args:
        valid: the groups before any filter, without failed trajectories.
        version: of the weights that are about to be trained; None: the newest that sampled a token.

    Returns:
        groups/filtered and episodes/filtered (left out), episodes/masked (kept for the statistics alone); staleness and
        staleness_max: `version` minus the version that sampled the token, mean and largest over action tokens.
    """
    out = {
        "groups/filtered": float(len(valid) - batch.group_ids.max(initial=-1) - 1),
        "episodes/filtered": float(sum(len(group.trajectories) for group in valid) - batch.n_trajectories),
        "episodes/masked": float(np.count_nonzero((batch.loss_counts == 0) & (batch.action_counts > 0))),
    }
    sampled = batch.versions[batch.action_mask]
    if len(sampled):
        newest = int(sampled.max()) if version is None else version
        out["staleness"] = newest - float(sampled.mean())
        out["staleness_max"] = float(newest - sampled.min())
    return out


def credit_metrics(batch: Batch, rewards: Rewards, advantage: Leveled) -> dict[str, float]:
    """Of what is trained on.

    Args:
        rewards: what is credited.
        advantage: as it is before the loss mask.

    Returns:
        return and return_std: of trajectories, as shaped and penalised. reward/kl_penalty: mean a trajectory of what
        was taken off at tokens. Of loss tokens: tokens/loss and tokens/effective (with an advantage other than 0);
        advantage/abs_mean; advantage/positive (share). advantage/turn_variance: mean over the trajectories with two
        turns or more of the variance of their turns' mean advantages; 0 where credit is broadcast.
    """
    values, counts = _on_loss_tokens(batch, advantage)
    tokens = float(batch.loss_counts.sum())
    out = {
        "tokens/loss": tokens,
        "tokens/effective": _total(values != 0, counts),
        "advantage/abs_mean": _total(np.abs(values), counts) / max(tokens, 1.0),
        "advantage/positive": _total(values > 0, counts) / max(tokens, 1.0),
    }
    if batch.n_trajectories:
        returns = total_returns(batch, rewards)
        out |= {"return": float(returns.mean()), "return_std": float(returns.std())}
    if rewards.tokens is not None:
        out["reward/kl_penalty"] = -float(rewards.tokens.sum()) / max(batch.n_trajectories, 1)
    variance = _turn_variance(batch, Leveled(advantage.level, values))
    return out if variance is None else {**out, "advantage/turn_variance": variance}


def _on_loss_tokens(batch: Batch, x: Leveled) -> tuple[Float64Array, Float64Array | None]:
    """The numbers and how many loss tokens are behind each; of tokens, 0 where they are not trained on, and None."""
    if x.level is Level.TRAJECTORY:
        return x.values, batch.loss_counts.astype(np.float64)
    if x.level is Level.TURN:
        return x.values, turn_loss_counts(batch).astype(np.float64)
    if batch.loss_mask is batch.action_mask:
        return x.values, None
    return np.where(batch.loss_mask[batch.action_mask], x.values, 0.0), None


def _total(x: Float64Array | BoolArray, counts: Float64Array | None) -> float:
    return float(x.sum() if counts is None else counts @ x)


def _turn_variance(batch: Batch, advantage: Leveled) -> float | None:
    """None where no trajectory has loss tokens in two of its turns."""
    means, present = advantage.values, turn_loss_counts(batch) > 0
    trained = sums_by(batch.turn_trajectory, present.astype(np.float64), batch.n_trajectories)  # [T] turns
    several = trained > 1
    if not several.any():
        return None
    if advantage.level is Level.TRAJECTORY:
        return 0.0
    if advantage.level is Level.ACTION:
        means = sums_of_runs(batch.turn_lengths, means) / np.maximum(turn_loss_counts(batch), 1)
    owner, means = batch.turn_trajectory[present], means[present]
    centres = sums_by(owner, means, len(several)) / np.maximum(trained, 1)
    squares = sums_by(owner, (means - centres[owner]) ** 2, len(several))
    return float((squares[several] / trained[several]).mean())


def _part_means(valid: Sequence[Trajectory]) -> Iterator[tuple[str, float]]:
    totals: dict[str, float] = {}
    for turn in (turn for t in valid for turn in t.turns):
        for name, value in turn.rewards.items():
            totals[name] = totals.get(name, 0.0) + value
    yield from ((f"part/{name}", total / len(valid)) for name, total in sorted(totals.items()))


def _group_shares(groups: Sequence[Group]) -> dict[str, float]:
    compared = [group for group in groups if len(group.valid) >= 2]
    if not compared:
        return {}
    flat = [group for group in compared if zero_variance(group)]
    return {
        "groups/zero_variance": len(flat) / len(compared),
        "groups/all_solved": sum(all(map(succeeded, g.valid)) for g in flat) / len(compared),
        "groups/all_failed": sum(not any(map(succeeded, g.valid)) for g in flat) / len(compared),
        "groups/std": float(np.mean([reward_variance(g) ** 0.5 for g in compared])),
    }
