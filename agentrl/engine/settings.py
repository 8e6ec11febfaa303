"""The `[engine]` table: which engine samples, and its limits. Imports no backend."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """`[engine.vllm]`: honoured by `kind = "vllm"` and by the servers that "vllm-server" starts; refused elsewhere when
    changed."""

    kv_cache_gib: float = 1.0  # CPU build: memory for the key-value cache
    gpu_memory_utilization: float = 0.45  # GPU build: share of the card; the learner needs the rest
    enforce_eager: bool = True  # no compilation: starts sooner, samples a little slower
    start_deadline_s: float = 300.0
    sync_deadline_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`[engine.server]`: honoured by `kind = "vllm-server"` alone, and refused elsewhere when changed."""

    urls: tuple[str, ...] = ()  # of vLLM servers that run already; (): agentrl starts them
    python: str = ""  # interpreter that has vLLM, to start servers with; "": this one
    count: int = 1  # servers to start
    gpus: tuple[str, ...] = ()  # CUDA_VISIBLE_DEVICES of each server to start; (): as here, for all
    arguments: tuple[str, ...] = ()  # further ones of vLLM's command line, for servers to start
    weights_folder: str = ""  # where pushed weights are written, seen by all servers; "": memory of this machine
    api_key_env: str = ""  # environment variable that holds the servers' API key; "": none
    retries: int = 3  # further tries of a request that a server failed
    backoff_s: float = 0.5  # before the first of them; doubled before each further one
    request_deadline_s: float = 100.0  # of one try of one completion; less than `rollout.turn_deadline_s`
    health_every_s: float = 5.0  # between two looks at a server
    health_deadline_s: float = 30.0  # for its answer to a look; later than that it is drained


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAISettings:
    """`[engine.openai]`: honoured by `kind = "openai"` alone, and refused elsewhere when changed."""

    url: str = "https://api.openai.com/v1"  # what stands before /chat/completions
    api_key_env: str = "OPENAI_API_KEY"  # environment variable that holds the key; "": none is sent
    max_tokens_field: str = "max_completion_tokens"  # older servers want "max_tokens"
    send_seed: bool = True  # some endpoints refuse a seed
    concurrency: int = 16  # requests at once
    retries: int = 5  # further tries after 429, 5xx, broken connections and time-outs
    backoff_s: float = 1.0  # before the first of them; doubled before each further one
    request_deadline_s: float = 300.0  # of one try


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    kind: str = "hf"  # "hf" | "vllm" | "vllm-server" | "scripted:NAME"; to evaluate only: "openai"
    max_context: int = 1024  # tokens of one request, prompt and completion together
    max_batch: int = 256  # requests sampled together
    vllm: VllmSettings = field(default_factory=VllmSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    openai: OpenAISettings = field(default_factory=OpenAISettings)
