"""The `[rollout]` table: how many episodes, how many at once, their limits, and what becomes of failures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """`[rollout.retry]`: how often an episode that failed is played anew, by the boundary that broke."""

    engine: int = 3
    env: int = 1
    tool: int = 2
    sandbox: int = 2
    verifier: int = 2
    backoff_s: float = 0.5  # before the first retry; twice as long before each further one
    backoff_max_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    groups_per_step: int = 16  # tasks a training step
    group_size: int = 8  # episodes a task
    concurrency: int = 256  # episodes running at once
    oversample: float = 1.0  # groups begun for each group wanted; the slowest are given up (they are longer on average)
    temperature: float = 1.0
    max_tokens_per_turn: int = 256  # sampled tokens of one action
    max_tokens_per_episode: int = 1024  # prompt, actions and observations; of each segment, where there are several
    # What to do where the chat template rewrites earlier turns, as those do that drop thinking. "template": begin a new
    # segment with what it makes of them, which is what the model is given in use. "append": go on with one stream.
    history: Literal["template", "append"] = "template"
    max_turns: int | None = None  # None: the environment's own
    turn_deadline_s: float = 120.0  # one policy call, and one env step; a tool's own deadline stands in `@tool`
    episode_deadline_s: float = 600.0
    retry: RetrySettings = field(default_factory=RetrySettings)
    max_failed_share: float = 0.5  # of a step's episodes; above it the run stops and says what broke
