"""The `[engine]` table: which engine samples, and its limits. Imports no backend."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """`[engine.vllm]`: honoured by `kind = "vllm"` alone, and refused elsewhere when changed."""

    kv_cache_gib: float = 1.0  # CPU build: memory for the key-value cache
    gpu_memory_utilization: float = 0.45  # GPU build: share of the card; the learner needs the rest
    enforce_eager: bool = True  # no compilation: starts sooner, samples a little slower
    start_deadline_s: float = 300.0
    sync_deadline_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    kind: str = "hf"  # "hf" | "vllm" | "scripted:NAME"
    max_context: int = 1024  # tokens of one request, prompt and completion together
    max_batch: int = 256  # requests sampled together
    vllm: VllmSettings = field(default_factory=VllmSettings)
