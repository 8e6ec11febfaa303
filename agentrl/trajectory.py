"""The record of an episode: token streams, turns, outcome, reward.

What comes in: what the engine sampled and what the environment answered. What goes out: frozen values with numpy
arrays inside. Tokens are the truth: ids and log-probabilities are kept as sampled. Knows no env, engine, model or
file.

Every per-token array speaks about the token at its own position: `logprobs[t]` is the log-probability of
`token_ids[t]` given the tokens before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
RewardKind = Literal["outcome", "process"]
UNKNOWN_VERSION = -1  # of weights that nobody knows; no token sampled by them can be trained on
# How a turn's prompt came about: render/chat.py says what each is.
Rendered = Literal["exact", "bridged", "kept", "forked"]
_ROUNDING = 1e-9  # 0.7 + 0.2 + 0.1 must reach a threshold of 1


class Outcome(StrEnum):
    """How an episode ended: terminated (the task ended), truncated (a limit cut it) or failed (machinery broke)."""

    TERMINATED = "terminated"
    TRUNCATED_TURNS = "truncated_turns"
    TRUNCATED_TOKENS = "truncated_tokens"
    TRUNCATED_TIME = "truncated_time"
    FAILED_ENV = "failed_env"
    FAILED_TOOL = "failed_tool"
    FAILED_ENGINE = "failed_engine"
    FAILED_SANDBOX = "failed_sandbox"
    FAILED_VERIFIER = "failed_verifier"
    CANCELLED = "cancelled"

    @property
    def truncated(self) -> bool:
        return self.value.startswith("truncated")

    @property
    def failed(self) -> bool:
        """True where there is no reward: broken machinery, or a cancelled episode."""
        return self.value.startswith("failed") or self is Outcome.CANCELLED


@dataclass(frozen=True, slots=True)
class Completion:
    """One call of the policy."""

    token_ids: IntArray  # [C] sampled ids, the stop token included
    logprobs: FloatArray  # [C] nats, under the distribution that was sampled from
    versions: IntArray  # [C] policy version that sampled each token; UNKNOWN_VERSION where nobody knows the weights
    finish_reason: Literal["stop", "length", "abort"]
    queue_s: float | None = field(default=None, compare=False)  # wall seconds before it was begun; None: not told

    def __post_init__(self) -> None:
        _same_length("Completion", token_ids=self.token_ids, logprobs=self.logprobs, versions=self.versions)


@dataclass(frozen=True, slots=True)
class Segment:
    """An append-only token stream: what the engine was fed and what it sampled, in order."""

    token_ids: IntArray  # [L]
    action_mask: BoolArray  # [L] true exactly where the policy sampled the token
    logprobs: FloatArray  # [L] nats under the behavior policy; 0 where the mask is false
    versions: IntArray  # [L] policy version of each sampled token; -1 where the mask is false

    def __post_init__(self) -> None:
        _same_length(
            "Segment",
            token_ids=self.token_ids,
            action_mask=self.action_mask,
            logprobs=self.logprobs,
            versions=self.versions,
        )

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool call that was run or refused."""

    name: str  # "" where there is no such tool
    seconds: float = field(compare=False)
    error: str | None = None  # the kind of error that the policy was told; None: it went well


@dataclass(frozen=True, slots=True)
class Turn:
    """One action and what the environment answered."""

    segment: int  # which of the trajectory's segments
    span: slice  # where its action tokens stand in that segment
    rewards: Mapping[str, float] = field(default_factory=dict)  # named parts, weights applied
    state_id: str | None = None  # equal ids = the same environment state when the action was chosen
    finish_reason: Literal["stop", "length", "abort"] = "stop"
    void: bool = False  # the action held neither a tool call nor an answer
    node_id: str | None = None  # equal ids in a group = one sampled turn that branched trajectories share
    value: float | None = None  # return to be expected from this turn's state on, from fresh rollouts out of it
    rendered: Rendered = "exact"  # how its prompt came about
    engine_s: float = 0.0  # wall seconds from the request to the completion
    queue_s: float | None = None  # of these, those before the engine began with it; None: it does not tell
    env_s: float = 0.0  # wall seconds of the environment's answer, its tools included
    tools: tuple[ToolUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode; normally one segment, more only where the history was rewritten.

    `reward` is the sum of all parts of all turns, and None exactly when the outcome is failed or cancelled.
    """

    task_id: str
    group_id: str
    seed: int
    segments: tuple[Segment, ...] = field(repr=False)  # printing arrays takes milliseconds
    turns: tuple[Turn, ...] = field(repr=False)
    outcome: Outcome
    reward: float | None
    reward_kinds: Mapping[str, RewardKind] = field(default_factory=dict)  # of every name in the turns' rewards
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    messages: tuple[Mapping[str, Any], ...] = field(
        default=(), repr=False
    )  # the view for people, as `messages.dump` writes it

    def __post_init__(self) -> None:
        if (self.reward is None) != self.outcome.failed:
            raise ValueError(
                f"outcome {self.outcome} came with reward {self.reward}: a failed or cancelled trajectory has reward "
                "None and every other one has a number"
            )

    @property
    def n_action_tokens(self) -> int:
        return sum(int(segment.action_mask.sum()) for segment in self.segments)

    @property
    def trainable(self) -> bool:
        """Whether it is known of every sampled token which weights sampled it, with which probability."""
        return all(bool((s.versions[s.action_mask] != UNKNOWN_VERSION).all()) for s in self.segments)

    @property
    def n_tokens(self) -> int:
        return sum(len(segment) for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Group:
    """Trajectories of one task: what group baselines are computed over."""

    group_id: str
    task_id: str
    trajectories: tuple[Trajectory, ...]
    greedy: Trajectory | None = None  # the task played without sampling: for the greedy baseline; it may have failed
    failed: tuple[Trajectory, ...] = ()  # attempts that failed and were played anew: in no statistic of the objective

    @property
    def valid(self) -> tuple[Trajectory, ...]:
        """The trajectories that have a reward."""
        return tuple(t for t in self.trajectories if t.reward is not None)

    @property
    def played(self) -> tuple[Trajectory, ...]:
        """Every episode: those that count, the greedy one, the failed attempts before them."""
        return (*self.trajectories, *([] if self.greedy is None else [self.greedy]), *self.failed)

    @property
    def oldest_version(self) -> int:
        """Version of the oldest weights that sampled a token of it; a very late one where nothing was sampled."""
        sampled = (s.versions[s.action_mask] for t in self.trajectories for s in t.segments)
        return min((int(versions.min()) for versions in sampled if len(versions)), default=2**62)


def succeeded(trajectory: Trajectory, threshold: float = 1.0) -> bool:
    """Whether the outcome parts of a valid trajectory's reward reach the threshold; process parts do not count."""
    kinds = trajectory.reward_kinds
    parts = (part for turn in trajectory.turns for part in turn.rewards.items())
    return math.fsum(value for name, value in parts if kinds[name] == "outcome") >= threshold - _ROUNDING


def _same_length(owner: str, **arrays: npt.NDArray[Any]) -> None:
    lengths = {name: array.shape for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or any(len(shape) != 1 for shape in lengths.values()):
        raise ValueError(f"{owner} wants 1-d arrays of one length, got {lengths}")
