"""One episode: reset; while running: complete, parse, step, extend; seal.

What comes in: a job (task, group, seed), an environment, an engine, a renderer and limits. What goes out: one
trajectory, always: a limit makes it truncated, broken machinery makes it failed with reward None and the error's
text. Only cancellation of the awaiting task and programming errors of agentrl itself raise. Knows no model and no
objective.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from agentrl.engine.base import Engine, Request, Sampling
from agentrl.engine.scripted import Scene
from agentrl.env.base import Env, StepResult
from agentrl.env.calling import invoke
from agentrl.env.task import Task
from agentrl.errors import (
    BoundaryError,
    EngineFailure,
    EnvFailure,
    SandboxFailure,
    ToolFailure,
    UserError,
    VerifierFailure,
)
from agentrl.messages import Message, dump
from agentrl.render.renderer import Renderer
from agentrl.rollout.recorder import Recorder
from agentrl.rollout.settings import RolloutSettings
from agentrl.seeds import derive_seed
from agentrl.trajectory import Completion, Outcome, Trajectory

T = TypeVar("T")

_FAILED: tuple[tuple[type[BoundaryError], Outcome], ...] = (
    (EngineFailure, Outcome.FAILED_ENGINE),
    (ToolFailure, Outcome.FAILED_TOOL),
    (SandboxFailure, Outcome.FAILED_SANDBOX),
    (VerifierFailure, Outcome.FAILED_VERIFIER),
    (EnvFailure, Outcome.FAILED_ENV),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to play. Equal jobs under equal weights draw equal random numbers."""

    task: Task
    group_id: str
    seed: int


class _End(NamedTuple):
    outcome: Outcome
    error: str | None = None


async def run_episode(
    job: Job, env: Env, engine: Engine, renderer: Renderer, settings: RolloutSettings, *, episode_id: str
) -> Trajectory:
    """Play `job` to its end and return its trajectory, whatever happens."""
    episode = _Episode(job, env, engine, renderer, settings, episode_id)
    try:
        end = await episode.play()
    except BoundaryError as error:
        end = _End(_outcome_of(error), f"{type(error).__name__}: {error}")
    finally:
        engine.release(episode_id)
    return episode.seal(end)


class _Episode:
    """The state of one running episode."""

    def __init__(
        self, job: Job, env: Env, engine: Engine, renderer: Renderer, settings: RolloutSettings, episode_id: str
    ) -> None:
        self.job, self.env, self.engine, self.renderer, self.settings = job, env, engine, renderer, settings
        self.episode_id = episode_id
        self.stream = Recorder()
        self.messages: list[Message] = []
        self.metrics: Mapping[str, float] = {}
        self.rng = random.Random(job.seed)
        self.max_turns = settings.max_turns or env.max_turns
        self.max_tokens = min(settings.max_tokens_per_episode, engine.max_context)

    async def play(self) -> _End:
        try:
            async with asyncio.timeout(self.settings.episode_deadline_s):
                return await self._play()
        except TimeoutError:
            await self._conclude(None)
            return _End(Outcome.TRUNCATED_TIME)

    async def _play(self) -> _End:
        state_id = await self._reset()
        while True:
            room = self.max_tokens - len(self.stream)
            if room <= 0:
                return await self._cut(Outcome.TRUNCATED_TOKENS, None)
            completion = await self._complete(min(room, self.settings.max_tokens_per_turn), len(self.stream.turns))
            self.stream.act(completion, state_id=state_id)
            if completion.finish_reason == "abort":
                return _End(Outcome.CANCELLED, "the engine aborted the request")
            action = self.renderer.parse(completion.token_ids)
            self.messages.append(action)
            if completion.finish_reason == "length":
                return await self._cut(Outcome.TRUNCATED_TOKENS, action)
            result = await self._boundary(invoke(self.env.step, action), EnvFailure, "step")
            state_id = self._take(result)
            if result.terminated:
                return _End(Outcome.TERMINATED)
            if result.truncated:
                return _End(Outcome.TRUNCATED_TURNS)
            if len(self.stream.turns) == self.max_turns:
                return await self._cut(Outcome.TRUNCATED_TURNS, None)
            stopped = bool(completion.token_ids[-1] == self.renderer.end_of_turn_id)
            self.stream.feed(self.renderer.extend(result.observation, stopped=stopped))

    async def _reset(self) -> str | None:
        call = invoke(self.env.reset, seed=self.job.seed, options={"task": self.job.task})
        observation, info = await self._boundary(call, EnvFailure, "reset")
        self.messages.extend(observation)
        self.stream.feed(self.renderer.prompt(self.messages, self.env.tool_schemas))
        if len(self.stream) >= self.max_tokens:
            raise EngineFailure(
                f"the prompt has {len(self.stream)} tokens and leaves no room in {self.max_tokens}: raise "
                "rollout.max_tokens_per_episode and engine.max_context"
            )
        self.metrics = info.get("metrics", {})
        state_id: str | None = info.get("state_id")
        return state_id

    async def _complete(self, max_tokens: int, turn: int) -> Completion:
        sampling = Sampling(
            max_tokens=max_tokens,
            stop_ids=self.renderer.stop_ids,
            temperature=self.settings.temperature,
            seed=derive_seed(self.job.seed, turn),
        )
        scene = Scene(self.env, self.job.task, self.messages, self.rng, self.renderer)
        request = Request(self.stream.token_ids, sampling, self.episode_id, scene)
        return await self._boundary(self.engine.complete(request), EngineFailure, "complete")

    def _take(self, result: StepResult) -> str | None:
        observation, reward, _, _, info = result
        parts = info.get("rewards")
        if parts is None:
            parts = {"reward": reward}
        total = sum(parts.values())
        if not math.isfinite(total):
            raise VerifierFailure(f"step gave the reward parts {dict(parts)}: every part must be a finite number")
        if abs(total - reward) > 1e-6 * max(1.0, abs(total)):
            raise EnvFailure(f"step gave reward {reward}, but its parts {dict(parts)} sum to {total}")
        self.stream.reward(parts)
        self.messages.extend(observation)
        self.metrics = info.get("metrics", self.metrics)
        state_id: str | None = info.get("state_id")
        return state_id

    async def _cut(self, outcome: Outcome, action: Any) -> _End:
        await self._conclude(action)
        return _End(outcome)

    async def _conclude(self, action: Any) -> None:
        if not self.stream.turns:
            return
        parts = await self._boundary(invoke(self.env.conclude, action), EnvFailure, "conclude")
        if not math.isfinite(sum(parts.values())):
            raise VerifierFailure(f"conclude gave the reward parts {dict(parts)}: every part must be a finite number")
        self.stream.reward(parts)

    async def _boundary(self, call: Awaitable[T], failure: type[BoundaryError], verb: str) -> T:
        """Await `call` under the turn's deadline; whatever breaks in it is a failure of that boundary."""
        limit = asyncio.timeout(self.settings.turn_deadline_s)
        try:
            async with limit:
                return await call
        except (BoundaryError, UserError):
            raise
        except TimeoutError as error:
            if limit.expired():
                raise failure(f"{verb} did not return within {self.settings.turn_deadline_s} s") from error
            raise failure(f"{verb}: TimeoutError: {error}") from error
        except Exception as error:
            raise failure(f"{verb} of {type(self.env).__name__}: {type(error).__name__}: {error}") from error

    def seal(self, end: _End) -> Trajectory:
        turns = tuple(self.stream.turns)
        reward = None if end.outcome.failed else float(sum(sum(turn.rewards.values()) for turn in turns))
        return Trajectory(
            task_id=self.job.task.id,
            group_id=self.job.group_id,
            seed=self.job.seed,
            segments=(self.stream.segment(),) if len(self.stream) else (),
            turns=turns,
            outcome=end.outcome,
            reward=reward,
            reward_kinds=dict(self.env.reward_kinds),
            metrics={**self.metrics, "turns": float(len(turns))},
            error=end.error,
            messages=tuple(dump(self.messages)),
        )


def _outcome_of(error: BoundaryError) -> Outcome:
    return next((outcome for kind, outcome in _FAILED if isinstance(error, kind)), Outcome.FAILED_ENV)
