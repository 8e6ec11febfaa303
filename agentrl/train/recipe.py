"""A recipe: every setting of a training run, as one tree of frozen values.

Each room owns its own table; this file only joins them. Reading TOML, overrides and checking live in
`agentrl.config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentrl.engine.settings import EngineSettings
from agentrl.learner.settings import LearnerSettings, OptimizerSettings, PolicySettings
from agentrl.rollout.settings import RolloutSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSettings:
    id: str  # a registered id or "module:Class"
    settings: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of the environment


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupSettings:
    """`[warmup]`: imitation of the environment's demonstrator before RL. 0 steps: none."""

    steps: int = 0
    episodes_per_step: int = 64
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(lr=1e-3))


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """`[objective]`: a preset, and overrides of its slots (`agentrl list presets` shows them)."""

    preset: str = "grpo"
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """`[sync]`: the canary after each weight push."""

    tolerance: float | None = None  # largest log-prob difference allowed, nats; None: 1e-4 in float32, 0.15 in bfloat16
    probe_tokens: int = 8  # sampled after each of a few prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """`[evaluation]`: greedy success on tasks that are never trained on."""

    every: int = 0  # RL steps between evaluations; 0: only after warm-up and at the end
    tasks: int = 400
    split: str = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    steps: int = 60
    max_staleness: int = 0  # versions; 0: strictly on-policy; above: episodes go on while the learner learns
    stale: Literal["drop", "keep"] = "drop"  # groups older than that; kept ones are `objective.mismatch`'s to correct
    checkpoint_every: int = 20  # RL steps; the last step is always kept; 0: only the last
    keep_checkpoints: int = 2
    save_trajectories_every: int = 1  # RL steps; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """`[launch]`: where it runs."""

    device: str = "auto"  # "auto" | "cpu" | "cuda" | "cuda:N"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 compute on a GPU, float32 on a CPU
    threads: int = 0  # torch threads; 0: torch's own choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    name: str
    env: EnvSettings
    seed: int = 0
    out: str = ""  # run folder; "": runs/<name>-seed<seed>
    policy: PolicySettings = field(default_factory=PolicySettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    warmup: WarmupSettings = field(default_factory=WarmupSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    launch: LaunchSettings = field(default_factory=LaunchSettings)
