"""`ToolEnv`: an environment whose policy calls tools and ends with an answer.

What comes in: a subclass with `@tool` and `@reward` methods and tasks. What goes out: the five-tuple of `Env`. The
calls of one action run together and are answered in order; an action without any is the final answer. Nothing a policy
says raises: a wrong call is answered with an error. Knows nothing of tokens and engines.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agentrl.env.base import Env, Observation, StepResult
from agentrl.env.calling import invoke, marked, together
from agentrl.env.holdings import Holdings
from agentrl.env.rubric import RewardPart, Rubric
from agentrl.env.task import Task
from agentrl.env.tasks import draw_task
from agentrl.env.text import clean
from agentrl.env.tool import MARK, Tool, ToolResult
from agentrl.env.view import Episode, TurnView
from agentrl.errors import EnvDefinitionError, EnvFailure
from agentrl.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, UserMessage
from agentrl.trajectory import RewardKind


@dataclass(slots=True)
class _Play:
    """The episode that is being played."""

    task: Task
    messages: list[Message]
    turns: list[TurnView] = field(default_factory=list)
    metrics: Counter[str] = field(default_factory=Counter)
    over: bool = False  # a step ended it
    concluded: bool = False  # its outcome parts have been given

    def add(self, turn: TurnView, answers: Sequence[ToolMessage]) -> None:
        self.messages += (turn.action, *answers)
        self.turns.append(turn)
        errors = [result.error for _, result in turn.calls if result.error is not None]
        self.metrics["tool_calls"] += len(turn.calls)
        self.metrics["tool_errors"] += len(errors)
        for kind in errors:
            self.metrics[f"tool_error/{kind}"] += 1


class ToolEnv(Env):
    """Subclass it; write `make_task` or `tasks`, `@tool` methods and `@reward` methods.

    The calls of one turn run at once: an `async def` tool is only interrupted where it awaits, a plain `def` tool runs
    in a thread beside the others. During an episode `self.task` is its task and `self.rng` its source of chance, seeded
    with the episode's seed.
    """

    system_prompt: str = ""
    extra_tools: Sequence[Callable[..., Any] | Tool] = ()  # functions that are offered beside the @tool methods
    task: Task
    rng: random.Random
    _play: _Play | None = None

    def setup(self, task: Task) -> Awaitable[None] | None:
        """Get ready for the episode of `task`: forget the last one. Called by `reset`, before the prompt is read."""
        return None

    def state_id(self) -> str | None:
        """Name the environment's state now: equal ids mean equal states. None: states are not named."""
        return None

    @cached_property
    def tools(self) -> Mapping[str, Tool]:
        """The tools by name: `@tool` methods in the order of their definition, then `extra_tools`."""
        methods = [Tool.of(getattr(self, name)) for name in marked(type(self), MARK)]
        extra = [item if isinstance(item, Tool) else Tool.of(item) for item in self.extra_tools]
        counts = Counter(tool.name for tool in methods + extra)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise EnvDefinitionError(
                f"{type(self).__name__} has more than one tool named {twice[0]!r}; rename one: @tool(name=...)"
            )
        return {tool.name: tool for tool in methods + extra}

    @cached_property
    def tool_schemas(self) -> Sequence[Mapping[str, Any]]:
        return tuple(tool.schema for tool in self.tools.values())

    @cached_property
    def reward_kinds(self) -> Mapping[str, RewardKind]:
        return {part.name: part.kind for part in self._rubric.parts}

    @property
    def reward_parts(self) -> tuple[RewardPart, ...]:
        """The reward's parts with their weights."""
        return self._rubric.parts

    @cached_property
    def _holdings(self) -> Holdings:
        return Holdings()

    @cached_property
    def _rubric(self) -> Rubric:
        return Rubric(self)

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, Mapping[str, Any]]:
        """Begin the episode of `options["task"]`, or of a task made from `seed`, or of any task."""
        seed = random.randrange(2**32) if seed is None else seed
        task = (options or {}).get("task")
        self.task = draw_task(self, seed) if task is None else task
        self.rng = random.Random(seed)
        self._play = None
        await self._holdings.end_episode()
        if type(self).setup is not ToolEnv.setup:
            with self._holdings.at_hand():
                await invoke(self.setup, self.task)
        prompt: list[Message] = [SystemMessage(content=self.system_prompt)] if self.system_prompt else []
        prompt.append(UserMessage(content=self.task.prompt))
        self._play = _Play(self.task, list(prompt))
        return tuple(prompt), self._info()

    async def step(self, action: AssistantMessage) -> StepResult:
        """Run the action's calls, or take it as the final answer.

        Raises:
            EnvFailure: there is no episode to step.
            BoundaryError: a tool's or a reward's machinery broke.
        """
        play = self._running()
        try:
            with self._holdings.at_hand():
                result = await self._step(play, action)
        except BaseException:
            await self._holdings.end_episode()
            raise
        if play.over:
            await self._holdings.end_episode()
        return result

    async def _step(self, play: _Play, action: AssistantMessage) -> StepResult:
        calls = action.tool_calls
        results = await together([self._answer(call) for call in calls])
        turn = TurnView(len(play.turns), action, tuple(zip(calls, results, strict=True)))
        rewards = await self._rubric.process(turn)
        answers = tuple(
            ToolMessage(content=result.content, name=call.name, call_id=call.id) for call, result in turn.calls
        )
        play.add(turn, answers)
        terminated = not calls
        truncated = not terminated and len(play.turns) >= self.max_turns
        play.over = terminated or truncated
        if play.over:
            rewards |= await self._outcome(play, (), truncated=truncated)
        info = {"rewards": rewards, "metrics": dict(play.metrics), "tools": turn.tools, **self._info()}
        return StepResult(answers, sum(rewards.values()), terminated, truncated, info)

    async def conclude(self, action: AssistantMessage | None) -> Mapping[str, float]:
        """The outcome parts, if they are still due; nothing where a step has given them."""
        play = self._play
        if play is None or play.concluded:
            return {}
        play.over = True
        try:
            with self._holdings.at_hand():
                return await self._outcome(play, () if action is None else (action,), truncated=True)
        finally:
            await self._holdings.end_episode()

    async def close(self) -> None:
        """Give back what the tools hold. A subclass that has more to give back calls this as well."""
        await self._holdings.close()

    async def _outcome(self, play: _Play, unanswered: Sequence[Message], *, truncated: bool) -> dict[str, float]:
        episode = Episode(play.task, (*play.messages, *unanswered), tuple(play.turns), truncated)
        rewards = await self._rubric.outcome(play.task, episode)
        play.concluded = True
        return rewards

    async def _answer(self, call: ToolCall) -> ToolResult:
        if call.error is not None:
            return ToolResult(f"Error: {call.error}", "malformed")
        tool = self.tools.get(call.name)
        if tool is None:
            known = ", ".join(self.tools) or "none"
            return ToolResult(clean(f"Error: there is no tool {call.name!r}; the tools are: {known}"), "unknown_tool")
        return await tool.call(call.arguments)

    def _running(self) -> _Play:
        if self._play is None:
            raise EnvFailure(f"{self.name}: step() came before reset()")
        if self._play.over:
            raise EnvFailure(f"{self.name}: the episode has ended; call reset() before the next step()")
        return self._play

    def _info(self) -> dict[str, Any]:
        state = self.state_id()
        return {} if state is None else {"state_id": state}
