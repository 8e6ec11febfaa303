"""The `[learner]` and `[policy]` tables. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0  # updates of linear warm-up
    schedule: Schedule = "constant"  # after warm-up; linear and cosine end at 0
    max_grad_norm: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSettings:
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    epochs: int = 1  # passes over a step's batch
    minibatches: int = 1  # optimiser updates a pass
    micro_batch_tokens: int = 8192  # padded tokens computed at once
    value_lr: float = 0.1  # of the critic's head, where the objective has one: about how far an update moves a value
    teacher: str = ""  # checkpoint with the policy's tokenizer, where the objective reads a teacher; "": none


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySettings:
    """`[policy.tiny]`: the Qwen3 that is made from the seed when `policy.path = "tiny"`."""

    hidden: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 32
    merges: int = 512  # byte-pair merges learnt from the env's demonstrations; 0: bytes alone


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    path: str = "tiny"  # a Hugging Face checkpoint folder or hub id, or "tiny"
    parser: str = "auto"  # family of the tool calls (`agentrl.render.parsers`); "auto": the chat template's own
    tiny: TinySettings = field(default_factory=TinySettings)
