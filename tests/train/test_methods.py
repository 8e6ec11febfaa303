"""Whole runs of objectives that ask more of the loop: critic, memory, further rounds, greedy episodes, teacher."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agentrl.rollout.records import read_trajectories
from agentrl.trajectory import Outcome
from tests.objective.play import groups_of, objective
from tests.train.runs import command, lines, run, timeless, wait_for_step, weights

SHORT = ("warmup.steps=4", "evaluation.every=0", "evaluation.tasks=4", "train.steps=2", "train.checkpoint_every=0")
STATEFUL = """
name = "stateful"
title = "A critic, a running coefficient and several updates a batch"
formula = "none"
side = "both"
addresses = "everything that a run must carry from step to step"
source = "none"
in_frame = true

kl_in_reward = [{ name = "adaptive_k1", initial = 0.3, target = 100.0, horizon = 20 }]
credit = { name = "gae_token", lam = 0.9 }
baseline = "value"
scale = { name = "whiten", level = "token" }
ratio = "token"
gate = "clip"
critic = "token_head"
aggregate = "token_mean"
"""


def train(recipe: Path, out: Path, *settings: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run("train", recipe, "--out", out, *(word for s in (*SHORT, *settings) for word in ("--set", s)), code=code)


def steps(folder: Path) -> list[dict[str, float]]:
    return [entry for entry in lines(folder) if entry["stage"] == "rl"]


def state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training state and the facts of a run's last checkpoint."""
    last = max((folder / "checkpoints").iterdir())
    facts = json.loads((last / "agentrl.json").read_text())
    return torch.load(last / "training_state.pt", weights_only=True), facts


def test_a_killed_run_with_critic_and_memory_ends_as_if_it_had_not_been(recipe_file: Path, tmp_path: Path) -> None:
    preset = tmp_path / "stateful.toml"
    preset.write_text(STATEFUL)
    settings = (
        *SHORT,
        f"objective.preset={preset}",
        "learner.epochs=2",
        "learner.minibatches=2",
        "train.steps=6",
        "train.checkpoint_every=2",
    )
    options = [word for s in settings for word in ("--set", s)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("train", recipe_file, "--out", whole, *options)
    process = subprocess.Popen(
        command("train", recipe_file, "--out", killed, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_step(process, killed, 3)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    run("train", "--resume", killed)
    for name, tensor in weights(whole / "checkpoints/step-00006").items():
        assert torch.equal(tensor, weights(killed / "checkpoints/step-00006")[name]), name
    (expected, facts), (got, facts_got) = state(whole), state(killed)
    assert expected["value_head"]["weight"].abs().max() > 0
    for name, tensor in expected["value_head"].items():
        assert torch.equal(tensor, got["value_head"][name]), name
    assert facts["memory"] == facts_got["memory"]
    (remembered,) = facts["memory"].values()
    assert remembered["beta"] == pytest.approx(0.3 * (1 - 0.2 * 12 / 20) ** 6)  # the KL never comes near its target
    for a, b in zip(lines(whole), lines(killed), strict=True):
        assert timeless(a) == timeless(b)
    assert "critic/explained" in steps(whole)[-1]
    assert steps(whole)[-1]["updates"] == 4


RARE = """
from pathlib import Path
from agentrl import Env, StepResult, Task, UserMessage

class Rare(Env):
    '''Right where the first character says so, which is so for half of them.'''
    max_turns = 1

    def make_task(self, seed):
        return Task(str(seed % 10**6))

    async def reset(self, *, seed=None, options=None):
        return [UserMessage(content=options["task"].prompt)], {}

    async def step(self, action):
        right = bool(action.content) and ord(action.content[0]) % 2 == 0
        return StepResult([], float(right), True, False, {})

    async def conclude(self, action):
        return {"reward": 0.0}

    def oracle(self, task, messages):
        from agentrl import AssistantMessage
        return AssistantMessage(content="b")

    def demonstrate(self, task, messages, rng):
        from agentrl import AssistantMessage
        return AssistantMessage(content=rng.choice("abcdefgh"))
"""


@pytest.fixture
def rare(tmp_path: Path) -> str:
    (tmp_path / "rare.py").write_text(RARE)
    return f"env.id={tmp_path / 'rare.py'}:Rare"


def test_a_group_is_useful_if_the_filters_that_refill_keep_it() -> None:
    groups = groups_of([0, 1], [1, 1], [0, 0], [0, 3])
    broken = replace(groups[0].trajectories[0], outcome=Outcome.FAILED_ENV, reward=None)
    refills = objective("grpo", filters=[{"name": "zero_variance_drop", "refill": 2}, "std_top_p"])
    assert refills.refill == 2
    assert [refills.useful(group) for group in groups] == [True, False, False, True]
    assert refills.useful(replace(groups[0], trajectories=(broken,)))
    assert not refills.useful(replace(groups[0], trajectories=(broken, groups[0].trajectories[0])))
    groups_of_void = [
        replace(t, turns=(replace(t.turns[0], void=i == 1),)) for i, t in enumerate(groups[0].trajectories)
    ]
    after_void = objective("grpo", filters=["void_turn_drop", {"name": "zero_variance_drop", "refill": 1}])
    assert after_void.useful(groups[0])
    assert not after_void.useful(replace(groups[0], trajectories=tuple(groups_of_void))), "one is left: no variance"
    plain = objective("grpo", filters=["zero_variance_drop"])
    assert plain.refill == 0
    assert all(plain.useful(group) for group in groups)


def test_groups_without_a_difference_are_played_for_again(recipe_file: Path, rare: str, tmp_path: Path) -> None:
    """Groups of two are equal half the time: six of them leave about three, and the rounds bring them back to six."""
    refill = 'objective.filters=[{name = "zero_variance_drop", refill = 4}]'
    sizes = ("rollout.groups_per_step=6", "rollout.group_size=2", "train.steps=4", "warmup.steps=20")
    train(recipe_file, tmp_path / "run", rare, refill, *sizes)
    played = [int(entry["groups"]) for entry in steps(tmp_path / "run")]
    kept = [entry["groups"] - entry["groups/filtered"] for entry in steps(tmp_path / "run")]
    assert max(played) > 6
    assert all(k <= 6 for k in kept)
    assert [e["episodes"] for e in steps(tmp_path / "run")] == [2 * n for n in played]
    for step, (n, entry) in enumerate(zip(played, steps(tmp_path / "run"), strict=True)):
        records = read_trajectories(tmp_path / "run" / "trajectories" / f"step-{step + 1:05d}.parquet")
        groups: dict[str, set[float | None]] = {}
        for t in records:
            groups.setdefault(t.group_id, set()).add(t.reward)
        rounds = {group.partition("r")[2].partition("g")[0] for group in groups} - {""}
        differ = sum(len(rewards) > 1 for rewards in groups.values())
        assert (len(groups), differ) == (n, entry["groups"] - entry["groups/filtered"])
        assert differ == 6 or rounds == {"0", "1", "2", "3"}


def test_a_greedy_baseline_gets_its_episodes(recipe_file: Path, tmp_path: Path) -> None:
    train(recipe_file, tmp_path / "run", "objective.preset=remax")
    for entry in steps(tmp_path / "run"):
        assert entry["episodes"] == 12
        assert 0 <= entry["greedy_reward"] <= 2
        assert entry["grad_norm"] > 0
        assert entry["sampled_tokens"] > 12 * entry["action_tokens"]
    assert len(read_trajectories(tmp_path / "run" / "trajectories" / "step-00001.parquet")) == 12


def test_a_teacher_teaches_and_another_tokenizers_is_refused_before_anything_is_learnt(
    recipe_file: Path, tmp_path: Path
) -> None:
    """The teacher's log-probs are the reward: on-policy distillation pulls the policy towards it."""
    train(recipe_file, tmp_path / "teacher", "train.steps=1", "warmup.steps=30")
    teacher = tmp_path / "teacher" / "checkpoints" / "step-00001"
    distil = (
        "objective.preset=grpo_opd",
        f"learner.teacher={teacher}",
        "objective.terms={coef = 10.0}",
        "warmup.steps=1",
        "learner.optimizer.lr=0.01",
    )
    train(recipe_file, tmp_path / "run", *distil, "train.steps=12", "rollout.group_size=8")
    gaps = [entry["advantage/abs_mean"] for entry in steps(tmp_path / "run")]
    assert gaps[-1] < 0.8 * gaps[0]
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = train(recipe_file, tmp_path / "refused", *distil, f"learner.teacher={other}", code=2)
    assert "has another tokenizer than the policy: 2 of" in done.stderr
    assert not [e for e in lines(tmp_path / "refused") if e["stage"] == "warmup"]
