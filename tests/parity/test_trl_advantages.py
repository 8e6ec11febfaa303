"""Advantages: agentrl's reward side against TRL's trainers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agentrl.objective.batch import Scores
from agentrl.trajectory import Outcome, Trajectory
from tests.parity import ours
from tests.parity.batches import Sample, sample
from tests.parity.compare import differ, same, shows
from tests.parity.trl_peer import SIZES, Grpo, Rloo, get_soft_overlong_punishment, whole

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("double")]
SEEDS = range(3)
GROUP_STD = {"name": "group_std", "eps": 1e-4}
GRPO = {"baseline": "group_mean", "scale": {"name": "group_std", "eps": 1e-6}}
ADVANTAGES = {
    "trl grpo, scale group": ({"scale_rewards": "group"}, {"baseline": "group_mean", "scale": GROUP_STD}),
    "trl grpo, scale batch": (
        {"scale_rewards": "batch"},
        {"baseline": "group_mean", "scale": {"name": "batch_std", "eps": 1e-4}},
    ),
    "trl grpo, scale none": ({"scale_rewards": "none"}, {"baseline": "group_mean"}),
}


@shows(*ADVANTAGES)
@pytest.mark.parametrize("key", ADVANTAGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_grpo_advantages_agree(key, seed):
    settings, slots = ADVANTAGES[key]
    played = sample(seed, sizes=SIZES)
    theirs = Grpo(played, mask_truncated_completions=True, **settings).advantages()
    same(theirs, ours.advantages(played, **slots))


@shows("trl grpo, epsilon")
def test_t6_trl_divides_by_a_little_more():
    """Theirs: std + 1e-4; ours, as in verl: std + 1e-6."""
    played = sample(0, sizes=SIZES)
    rewards = played.batch.rewards.reshape(len(SIZES), -1)
    centred, std = rewards - rewards.mean(1, keepdims=True), rewards.std(1, ddof=1, keepdims=True)
    theirs, mine = Grpo(played).scored()["advantages"].numpy(), ours.advantages(played, **GRPO)
    first = played.batch.turn_starts[np.flatnonzero(played.batch.turn_index == 0)]
    kept = played.batch.loss_counts > 0
    np.testing.assert_allclose(theirs, (centred / (std + 1e-4)).ravel(), atol=1e-12)
    np.testing.assert_allclose(mine[first][kept], (centred / (std + 1e-6)).ravel()[kept], atol=1e-6)
    differ(theirs[kept], mine[first][kept], by=5e-5)


@shows("trl grpo, normalize_then_sum")
@pytest.mark.parametrize("seed", SEEDS)
def test_gdpo_advantages_agree(seed):
    played = sample(seed, sizes=SIZES, truncated=False)
    rewards = np.stack([played.part_rewards("correct"), played.part_rewards("step")], 1)
    theirs = Grpo(played, rewards, multi_objective_aggregation="normalize_then_sum").advantages()
    mine = ours.advantages(
        played,
        shape={"name": "per_reward_std", "eps": 1e-4},
        baseline="group_mean",
        scale={"name": "whiten", "level": "sequence", "eps": 1e-4},
    )
    same(theirs, mine)


@shows("trl rloo")
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("seed", SEEDS)
def test_rloo_advantages_agree(beta, seed):
    played = whole(seed)
    theirs = Rloo(played, beta=beta).advantages()
    slots = {"baseline": "leave_one_out", "kl_in_reward": {"name": "k1", "beta": beta}}
    same(theirs * played.batch.action_mask, ours.advantages(played, **slots))


@shows("trl rloo, normalize_advantages")
@pytest.mark.parametrize("seed", SEEDS)
def test_normalized_rloo_advantages_agree(seed):
    played = whole(seed)
    theirs = Rloo(played, normalize_advantages=True).advantages()
    scale = {"name": "whiten", "level": "sequence", "eps": 1e-4}
    same(theirs, ours.advantages(played, baseline="leave_one_out", scale=scale))


@shows("trl unscorable")
@pytest.mark.parametrize(("trainer", "baseline"), [(Grpo, "group_mean"), (Rloo, "leave_one_out")])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_could_not_be_scored_is_in_no_baseline(trainer, baseline, seed):
    """A reward function's None there, a failed trajectory here; one that is left alone in its group gets 0 in both."""
    played = whole(seed)
    lost = [1, 5, 6, 7]
    rewards = played.batch.rewards.copy()
    rewards[lost] = np.nan
    theirs = trainer(played, rewards, scale_rewards="none").scored()["advantages"].numpy()
    trajectories = [_failed(t) if i in lost else t for i, t in enumerate(played.batch.trajectories)]
    groups = [replace(g, trajectories=tuple(trajectories[4 * i : 4 * i + 4])) for i, g in enumerate(played.groups)]
    method = ours.objective(baseline=baseline)
    batch = method.select(groups)
    mine = method.credit(batch, Scores()).advantages.astype(np.float64)  # neither baseline reads a model's numbers
    starts = batch.turn_starts[np.flatnonzero(batch.turn_index == 0)]
    same(np.delete(theirs, lost), mine[starts])
    assert theirs[4] == mine[starts][3] == 0
    assert (theirs[lost] == 0).all()


def _failed(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, outcome=Outcome.FAILED_TOOL, reward=None, turns=())


@shows("trl get_soft_overlong_punishment", "trl get_soft_overlong_punishment, tool output")
@pytest.mark.parametrize("seed", SEEDS)
def test_t41_soft_overlong_punishments_agree_on_sampled_tokens(seed):
    played = whole(seed)
    punish = get_soft_overlong_punishment(max_completion_len=9, soft_punish_cache=5)
    lengths = {kind: rows.sum(1).int().tolist() for kind, rows in _lengths(played).items()}
    theirs = {kind: np.array(punish([[5] * n for n in of])) for kind, of in lengths.items()}
    shape = {"name": "overlong_soft", "max_length": 9, "cache": 5}
    first = played.batch.turn_starts[np.flatnonzero(played.batch.turn_index == 0)]
    mine = (ours.advantages(played, shape=shape) - ours.advantages(played))[first]
    assert len(set(theirs["sampled"])) > 3
    np.testing.assert_allclose(mine, theirs["sampled"], atol=1e-6)
    assert (theirs["all"] <= theirs["sampled"]).all()
    differ(theirs["all"], mine)


def _lengths(played: Sample) -> dict[str, torch.Tensor]:
    return {"sampled": played.rows.actions, "all": (played.rows.flat >= 0).double()}
