"""The engine's contract: token ids in; ids, log-probabilities and versions out.

An engine samples tokens and takes new weights. It knows nothing of messages, tools, environments or rewards.
Cancelling the task that awaits `complete` stops the sampling of that request; `abort` stops it and returns what was
sampled so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from agentrl.trajectory import Completion, IntArray


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample one completion. Temperature 0 is greedy."""

    max_tokens: int
    stop_ids: tuple[int, ...]  # sampling ends with, and includes, any of these
    temperature: float = 1.0
    seed: int = 0  # equal seeds, prompts and weights give equal random draws


@dataclass(frozen=True, slots=True)
class Request:
    """One policy call of one episode."""

    prompt_ids: IntArray  # [P] everything before the action
    sampling: Sampling
    episode_id: str  # unique per running episode; an engine may keep its prefix between turns
    context: object = None  # what a scripted policy looks at; engines that sample never read it
    sampler: int | None = None  # which of the engine's samplers is to answer, if it can; None: any


class WeightSource(Protocol):
    """The learner's current weights, in whichever form an engine can take."""

    def named_tensors(self) -> Iterable[tuple[str, Any]]:
        """Pairs of a Hugging Face parameter name and a torch tensor (shared, not copied)."""
        ...

    def write(self, folder: Path) -> None:
        """Write a Hugging Face checkpoint (config and safetensors) into `folder`."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Samples completions, many at a time."""

    @property
    def version(self) -> int:
        """Version of the weights that sample now."""
        ...

    @property
    def max_context(self) -> int:
        """Most tokens (prompt and completion together) that one request may have."""
        ...

    @property
    def samplers(self) -> int:
        """How many samplers, each with weights of its own, stand behind it; `Request.sampler` counts them from 0."""
        ...

    @property
    def broken(self) -> str | None:
        """Why it can sample no more until it is closed and started again; None: it can, or that would not help."""
        ...

    async def start(self) -> None:
        """Get ready to sample. An engine that was closed waits for `update_weights` before it samples again.

        Raises:
            EngineFailure: the backend did not come up.
        """
        ...

    async def complete(self, request: Request) -> Completion:
        """Sample one completion.

        Raises:
            EngineFailure: the backend broke, or the prompt leaves no room in `max_context`.
        """
        ...

    async def abort(self, episode_id: str) -> None:
        """Stop the episode's running request; its `complete` returns with finish_reason "abort"."""
        ...

    def release(self, episode_id: str) -> None:
        """The episode is over: forget what was kept for it. Unknown ids are fine."""
        ...

    async def update_weights(self, source: WeightSource, version: int) -> None:
        """Sample with these weights, named `version`, from now on.

        Raises:
            EngineFailure: the weights could not be loaded.
        """
        ...

    def metrics(self) -> Mapping[str, float]:
        """What the engine tells of its own work: counters since it was made, and gauges.

        `requests`; `prefix_hit_rate`, the share of prompt tokens that it need not compute anew; where it knows them,
        `retries`, `kv_usage`, `running`, `waiting`, `servers`. NaN: it cannot tell.
        """
        ...

    async def close(self) -> None:
        """Stop everything and leave no process behind. May be called twice."""
        ...
