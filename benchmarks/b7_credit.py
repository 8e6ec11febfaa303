"""B7: what credit costs: 4096 trajectories of 16 turns (16 tool and 24 action tokens each), groups of 8.

Ours: `Objective.credit` of a batch that is already made (but not its cached tables: each call gets a fresh one), from
rewards to an advantage for every token, a critic's targets and the metrics included. The peer, verl, is given its
padded [T, L] tensors ready-made and writes such ones; its numbers are checked to be ours. Figures are processor time
with one thread, so that other work on the machine does not count; the peer's calls and ours take turns. Making the
batch is reported apart.

verl stands in an environment of its own: `make parity-setup`, then `.venv-parity/bin/python benchmarks/b7_credit.py`.
Without it the script runs, too. Floor: the goal of 20 us a trajectory.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from report import Row, arguments, show

from agentrl.objective import Batch, Objective, Scores, load_spec, preset_names
from agentrl.objective.loading import spec_from_table
from agentrl.objective.spec import REWARD_SLOTS
from agentrl.trajectory import Group, Outcome, RewardKind, Segment, Trajectory, Turn

TRAJECTORIES, TURNS, OBSERVED, ACTED, GROUP = 4096, 16, 16, 24, 8
TURN = OBSERVED + ACTED
KINDS: Mapping[str, RewardKind] = {"correct": "outcome", "step": "process"}
GOAL = 20.0  # us a trajectory
PLAIN = {"ratio": "token", "gate": "clip", "aggregate": "token_mean"}  # of what no preset has
UNSHIPPED: Mapping[str, Mapping[str, Any]] = {
    "mc_turn": {"credit": "mc_turn", "baseline": "mc_value"},
    "tree": {"credit": "tree", "baseline": "group_mean", "terms": ["tree_intra"]},
    "rtg_token": {"credit": {"name": "rtg_token", "gamma": 0.99}, "baseline": "group_mean"},
    "states": {"credit": "rtg_turn", "baseline": "state_mean", "scale": "state_std"},
}


def make_groups(rng: np.random.Generator) -> list[Group]:
    played = [[make_trajectory(rng, str(g), i) for i in range(GROUP + 1)] for g in range(TRAJECTORIES // GROUP)]
    return [Group(str(g), f"t{g}", tuple(ts[:GROUP]), greedy=ts[GROUP]) for g, ts in enumerate(played)]


def make_trajectory(rng: np.random.Generator, group: str, index: int) -> Trajectory:
    length = TURNS * TURN
    mask = np.tile(np.arange(TURN) >= OBSERVED, TURNS)
    logprobs = np.where(mask, -rng.random(length), 0).astype(np.float32)
    stream = Segment(rng.integers(0, 1000, length), mask, logprobs, np.where(mask, 0, -1))
    earned, states = (rng.random(TURNS) / 32).tolist(), rng.integers(0, 20, TURNS).tolist()
    turns = []
    for k, (step, state) in enumerate(zip(earned, states, strict=True)):
        parts = (
            {"step": step} if k < TURNS - 1 else {"step": step, "correct": 0.5 * (rng.random() < 0.5)}
        )  # at most 1 in all
        span = slice(k * TURN + OBSERVED, (k + 1) * TURN)
        node = f"{k}-{index // 2 if k < TURNS // 2 else index}"
        turns.append(Turn(0, span, parts, state_id=f"s{state}", node_id=node, value=step))
    reward = sum(sum(turn.rewards.values()) for turn in turns)
    return Trajectory("task", group, index, (stream,), tuple(turns), Outcome.TERMINATED, reward, KINDS)


def make_scores(rng: np.random.Generator, batch: Batch) -> Scores:
    def draw() -> np.ndarray:
        return np.where(batch.action_mask, rng.normal(-1, 0.3, batch.n_tokens), 0).astype(np.float32)

    return Scores(logprobs=draw(), reference=draw(), teacher=draw(), values=draw())


def combinations() -> dict[str, Objective]:
    """One objective for each reward side that a preset has or that stands in UNSHIPPED."""
    found: dict[str, Objective] = {}
    sides = set()
    for name in preset_names():
        spec = load_spec(name)
        side = repr([getattr(spec, slot) for slot in REWARD_SLOTS])
        if side not in sides:
            found[f"{name}: {title(spec)}"] = Objective(spec)
        sides.add(side)
    for name, choices in UNSHIPPED.items():
        about = {"name": name, "title": "", "formula": "", "side": "reward", "addresses": "", "source": ""}
        spec = spec_from_table({**about, "in_frame": True, **PLAIN, **choices})
        found[f"(no preset): {title(spec)}"] = Objective(spec)
    return found


def title(spec: Any) -> str:
    names = spec.as_dict()
    slots = [names["credit"], names["baseline"], *([names["scale"]] if names["scale"]["name"] != "none" else [])]
    return " ".join([*(slot["name"] for slot in slots), *(f"+{term['name']}" for term in names["terms"])])


@dataclass(frozen=True)
class Peer:
    """verl's tensors of a batch, and its estimators."""

    tensors: Mapping[str, Any]
    index: np.ndarray

    @classmethod
    def of(cls, batch: Batch, scores: Scores) -> Peer | None:
        if not importlib.util.find_spec("verl"):
            return None
        import torch

        torch.set_num_threads(1)
        rewards = np.zeros(batch.n_tokens, np.float32)
        rewards[batch.turn_starts + batch.turn_lengths - 1] = batch.turn_rewards
        mask, values = batch.action_mask.astype(np.float32), np.asarray(scores.values)
        flat = {"token_level_rewards": rewards, "response_mask": mask, "values": values}
        rows = {name: torch.from_numpy(x.reshape(TRAJECTORIES, -1)) for name, x in flat.items()}
        return cls(rows, np.array([str(g) for g in batch.group_ids], object))

    def call(self, name: str) -> Any:
        from verl.trainer.ppo import core_algos

        rows = dict(self.tensors)
        values = rows.pop("values")
        more = {"values": values, "gamma": 1.0, "lam": 0.95} if name == "gae" else {"index": self.index}
        return core_algos.get_adv_estimator_fn(name)(**rows, **more)[0]


PEERS = {  # verl's estimators, and the preset that is to give the same numbers
    "grpo": "grpo",
    "grpo_vectorized": "grpo",
    "rloo": "rloo",
    "rloo_vectorized": "rloo",
    "gae": "ppo",
}
CHANGES: Mapping[str, Mapping[str, Any]] = {"ppo": {"kl_in_reward": "none", "critic": {"lam": 0.95}}}


def credit_of(objective: Objective, batch: Batch, scores: Scores) -> Callable[[], object]:
    asked = replace(scores, values=scores.values if objective.spec.needs_values else None)
    return lambda: objective.credit(replace(batch), asked)


def alone(name: str, call: Callable[[], object], times: int, goal: float | None) -> Row:
    ((median, p95),) = measure(times, [call])
    return Row(name, "us/traj", median, p95, peer_name="", floor=goal)


def measure(times: int, calls: Sequence[Callable[[], object]]) -> list[tuple[float, float]]:
    """Median and 95th percentile of each call, in us a trajectory; the calls take turns."""
    figures: list[list[float]] = [[] for _ in calls]
    for turn in range(times + 1):
        for mine, call in zip(figures, calls, strict=True):
            began = time.process_time()
            call()
            if turn:  # the first does not count
                mine.append(1e6 * (time.process_time() - began) / TRAJECTORIES)
    return [(statistics.median(f), sorted(f)[min(len(f) - 1, round(0.95 * len(f)))]) for f in figures]


def main() -> None:
    options = arguments(__doc__ or "")
    times = 6 if options.quick else 20
    rng = np.random.default_rng(0)
    groups = make_groups(rng)
    batch = Batch.from_groups(groups)
    scores = make_scores(rng, batch)
    peer = Peer.of(batch, scores)
    rows = []
    for estimator, preset in PEERS.items():
        ours = Objective(load_spec(preset, CHANGES.get(preset)))
        calls = [credit_of(ours, batch, scores)]
        if peer is not None:
            check_same(ours.credit(batch, scores).advantages, peer.call(estimator))
            calls.append(partial(peer.call, estimator))
        figures = measure(times, calls)
        beside = (figures[1][0], f"verl {estimator}") if peer else (None, "verl is not installed here")
        rows.append(Row(preset, "us/traj", *figures[0], *beside, floor=GOAL))
    rows.append(alone("making the batch", partial(Batch.from_groups, groups), times, None))
    for name, objective in combinations().items():
        rows.append(alone(name, credit_of(objective, batch, scores), times // 2, GOAL))
    show("B7 credit", rows, options.json)


def check_same(ours: np.ndarray, theirs: Any) -> None:
    gap = float(np.abs(ours - theirs.numpy().ravel())[ours != 0].max())
    assert gap < 1e-3, f"not the same work: advantages differ by {gap}"


if __name__ == "__main__":
    main()
