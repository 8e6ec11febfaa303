"""One episode: reset; while running: complete, parse, step, extend; seal.

What comes in: a job (task, group, seed), an environment, an engine, a renderer and limits. What goes out: one
trajectory, always: a limit makes it truncated, broken machinery makes it failed with reward None and the error's
text. Only cancellation of the awaiting task and programming errors of agentrl itself raise. Knows no model and no
objective.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from agentrl.engine.base import Engine, Request, Sampling
from agentrl.engine.scripted import Scene
from agentrl.env.base import Env, Observation, StepResult
from agentrl.env.calling import invoke
from agentrl.env.contract import checked_parts, checked_reset, checked_step
from agentrl.env.task import Task
from agentrl.errors import (
    BoundaryError,
    ConfigError,
    EngineFailure,
    EnvFailure,
    SandboxFailure,
    ToolFailure,
    UserError,
    VerifierFailure,
    described,
)
from agentrl.messages import AssistantMessage, Message, ToolCall, dump
from agentrl.render.chat import Chat
from agentrl.render.renderer import Renderer
from agentrl.rollout.deadlines import Deadlines
from agentrl.rollout.recorder import Recorder
from agentrl.rollout.settings import RolloutSettings
from agentrl.rollout.turnstile import Turnstile
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
    greedy: bool = False  # always the likeliest token, whatever the settings' temperature


class _End(NamedTuple):
    outcome: Outcome
    error: str | None = None


async def run_episode(
    job: Job,
    env: Env,
    engine: Engine,
    renderer: Renderer,
    settings: RolloutSettings,
    *,
    episode_id: str,
    turnstile: Turnstile | None = None,
) -> Trajectory:
    """Play `job` to its end and return its trajectory, whatever happens.

    Args:
        turnstile: shared by the episodes that are played at once.
    """
    try:
        episode = _Episode(job, env, engine, renderer, settings, episode_id, turnstile or Turnstile())
    except UserError:
        raise
    except Exception as error:
        return failed_trajectory(job, EnvFailure(f"{type(env).__name__} cannot be played: {described(error)}"))
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
        self,
        job: Job,
        env: Env,
        engine: Engine,
        renderer: Renderer,
        settings: RolloutSettings,
        episode_id: str,
        turnstile: Turnstile,
    ) -> None:
        self.job, self.env, self.engine, self.renderer, self.settings = job, env, engine, renderer, settings
        self.episode_id, self.turnstile = episode_id, turnstile
        self.stream = Recorder()
        self.messages: list[Message] = []
        self.chat: Chat
        self.deadlines: Deadlines
        self.metrics: Mapping[str, float] = {}
        self.calls: list[ToolCall] = []  # of all actions
        self.rng = random.Random(job.seed)
        self.waits_for = "reset"
        if not isinstance(env.max_turns, int) or env.max_turns < 1:
            raise ConfigError(
                f"{type(env).__name__}.max_turns is {env.max_turns!r}, wanted a number of turns, 1 or more"
            )
        self.max_turns = settings.max_turns or env.max_turns
        if self.max_turns > env.max_turns:
            raise ConfigError(
                f"max_turns is {self.max_turns}, but {type(env).__name__} ends after {env.max_turns} turns: "
                "lower it, or raise the environment's own max_turns"
            )
        self.max_tokens = min(settings.max_tokens_per_episode, engine.max_context)

    async def play(self) -> _End:
        self.deadlines = Deadlines(self.settings.episode_deadline_s, self.settings.turn_deadline_s)
        try:
            return await self._play()
        except asyncio.CancelledError:
            if not self.deadlines.ended():
                raise
            if self.waits_for != "complete":  # the environment is still at it: it cannot be asked what is due
                limit = self.settings.episode_deadline_s
                raise EnvFailure(f"{self.waits_for} had not returned when the episode's {limit} s were over") from None
            if not self.stream.turns:
                limit = self.settings.episode_deadline_s
                return _End(Outcome.TRUNCATED_TIME, f"the episode's {limit} s were over before the policy had spoken")
            return await self._cut(Outcome.TRUNCATED_TIME, None)
        finally:
            self.deadlines.close()

    async def _play(self) -> _End:
        state_id = await self._reset()
        if len(self.stream) >= self.max_tokens:
            return _End(
                Outcome.TRUNCATED_TOKENS,
                f"the prompt has {len(self.stream)} tokens and leaves no room in {self.max_tokens}: raise "
                "rollout.max_tokens_per_episode (in a suite the scenario's max_tokens_per_episode) and "
                "engine.max_context",
            )
        while True:
            room = self.max_tokens - len(self.stream)
            began = time.perf_counter()
            completion = await self._complete(min(room, self.settings.max_tokens_per_turn), len(self.stream.turns))
            self.stream.act(completion, state_id=state_id, engine_s=time.perf_counter() - began)
            action = self.renderer.parse(completion.token_ids)
            self.calls += action.tool_calls
            if completion.finish_reason != "stop" and all(call.error for call in action.tool_calls):
                self.stream.mark_void()
            if completion.finish_reason == "abort":
                return _End(Outcome.CANCELLED, "the engine aborted the request")
            self.messages.append(action)
            if completion.finish_reason == "length":
                return await self._cut(Outcome.TRUNCATED_TOKENS, action)
            result = await self._step(action)
            if says_nothing(action, result, tools=bool(self.env.tool_schemas)):
                self.stream.mark_void()
            if result.terminated:
                return _End(Outcome.TERMINATED)
            if result.truncated:
                return _End(Outcome.TRUNCATED_TURNS)
            if len(self.stream.turns) == self.max_turns:
                return await self._cut(Outcome.TRUNCATED_TURNS, None)
            await self._pass()
            state_id = result.info.get("state_id")
            extension = self.chat.extend(completion.token_ids, action, result.observation)
            before = 0 if extension.rendered == "forked" else len(self.stream)
            if before + len(extension.token_ids) >= self.max_tokens:  # the policy never sees it: nor does the learner
                return await self._cut(Outcome.TRUNCATED_TOKENS, None)
            self.stream.extend(extension.token_ids, extension.rendered)

    async def _reset(self) -> str | None:
        async def reset() -> tuple[Observation, Mapping[str, Any]]:
            return checked_reset(await invoke(self.env.reset, seed=self.job.seed, options={"task": self.job.task}))

        observation, info = await self._boundary("reset", reset(), EnvFailure)
        self.messages.extend(observation)
        self.chat = self.renderer.begin(self.messages, self.env.tool_schemas, self.settings.history)
        self.stream.feed(self.chat.prompt)
        self.metrics = info.get("metrics", {})
        state_id: str | None = info.get("state_id")
        await self._pass()
        return state_id

    async def _complete(self, max_tokens: int, turn: int) -> Completion:
        sampling = Sampling(
            max_tokens=max_tokens,
            stop_ids=self.renderer.stop_ids,
            temperature=0.0 if self.job.greedy else self.settings.temperature,
            seed=derive_seed(self.job.seed, turn),
        )
        scene = Scene(self.env, self.job.task, self.messages, self.rng, self.renderer)
        request = Request(self.stream.token_ids, sampling, self.episode_id, scene)
        completion = await self._boundary("complete", self.engine.complete(request), EngineFailure)
        await self._pass()
        return completion

    async def _step(self, action: AssistantMessage) -> StepResult:
        async def step() -> tuple[StepResult, Mapping[str, float]]:
            return checked_step(self.env, await invoke(self.env.step, action))

        began = time.perf_counter()
        result, parts = await self._boundary("step", step(), EnvFailure)
        env_s, tools = time.perf_counter() - began, tuple(result.info.get("tools", ()))
        self.stream.answered(parts, env_s=env_s, tools=tools)
        self.messages.extend(result.observation)
        self.metrics = result.info.get("metrics", self.metrics)
        return result

    async def _cut(self, outcome: Outcome, action: AssistantMessage | None) -> _End:
        """End at a limit; the environment says what is still due for what was done."""

        async def conclude() -> Mapping[str, float]:
            return checked_parts(self.env, "conclude", await invoke(self.env.conclude, action))

        if self.stream.turns:
            self.stream.reward(await self._boundary("conclude", conclude(), EnvFailure))
        return _End(outcome)

    async def _boundary(self, verb: str, call: Awaitable[T], failure: type[BoundaryError]) -> T:
        """Await `call` under the turn's deadline; whatever breaks in it is a failure of that boundary."""
        self.waits_for = verb
        self.deadlines.wait()
        late = False
        try:
            try:
                value = await call
            finally:
                late = self.deadlines.waited()
        except (BoundaryError, UserError, KeyboardInterrupt, GeneratorExit):
            raise
        except (asyncio.CancelledError, TimeoutError) as error:
            if late:
                raise failure(f"{verb} did not return within {self.settings.turn_deadline_s} s") from error
            if isinstance(error, TimeoutError):
                raise failure(f"{verb}: TimeoutError: {error}") from error
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise failure(f"{verb} of {type(self.env).__name__} cancelled itself") from error
        except BaseException as error:  # a boundary: whatever an author's code raises is a failed episode
            raise failure(f"{verb} of {type(self.env).__name__}: {described(error)}") from error
        self.deadlines.insist()
        return value

    async def _pass(self) -> None:
        """Let others use the processor. The environment is not at work, so the episode may be cut here."""
        self.waits_for = "complete"
        await self.turnstile()

    def seal(self, end: _End) -> Trajectory:
        turns = tuple(self.stream.turns)
        reward = None if end.outcome.failed else float(sum(sum(turn.rewards.values()) for turn in turns))
        return Trajectory(
            task_id=self.job.task.id,
            group_id=self.job.group_id,
            seed=self.job.seed,
            segments=self.stream.segments(),
            turns=turns,
            outcome=end.outcome,
            reward=reward,
            reward_kinds=dict(self.env.reward_kinds),
            metrics={
                **self.metrics,
                "turns": float(len(turns)),
                "calls": float(len(self.calls)),
                "unreadable_calls": float(sum(call.error is not None for call in self.calls)),
            },
            error=end.error,
            messages=tuple(dump(self.messages)),
        )


def says_nothing(action: AssistantMessage, result: StepResult, *, tools: bool) -> bool:
    """Whether an action held neither a tool call nor an answer (a void turn, 2509.02479).

    A call that cannot be read is a call: the environment tells what is wrong with it. Words without a call are an
    answer if the environment ended the episode with them, and an action where there are no tools. Thinking is neither.
    """
    if action.tool_calls:
        return False
    return not action.content or (tools and not result.terminated)


def failed_trajectory(job: Job, error: BoundaryError) -> Trajectory:
    """The record of an episode that could not even begin."""
    return Trajectory(
        task_id=job.task.id,
        group_id=job.group_id,
        seed=job.seed,
        segments=(),
        turns=(),
        outcome=_outcome_of(error),
        reward=None,
        error=f"{type(error).__name__}: {error}",
    )


def _outcome_of(error: BoundaryError) -> Outcome:
    return next((outcome for kind, outcome in _FAILED if isinstance(error, kind)), Outcome.FAILED_ENV)
