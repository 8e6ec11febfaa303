"""Checks that anyone can run on an environment: `agentrl check ENV`.

What comes in: an environment's id, or a function that makes one. What goes out: a row a check, with what was found. A
check plays real episodes, with the environment's oracle, with a policy that says nothing and with one that makes every
kind of mistake. Knows nothing of tokens and engines.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from agentrl.env.base import Env
from agentrl.env.calling import invoke
from agentrl.env.contract import checked_parts, checked_reset, checked_step
from agentrl.env.registry import make
from agentrl.env.task import Task
from agentrl.env.tasks import PROCEDURAL_SPLITS, TaskSource
from agentrl.env.tool_env import ToolEnv
from agentrl.errors import DataError
from agentrl.messages import AssistantMessage, Message, ToolCall, dump
from agentrl.trajectory import RewardKind

Policy = Callable[[Env, Task, Sequence[Message]], Awaitable[AssistantMessage]]

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's name, whether the environment passed it, and what was found."""

    name: str
    passed: bool
    detail: str


class _Fault(Exception):
    """The environment does not pass; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Record:
    """An episode that was played: everything the environment said, and its reward's parts summed over the turns."""

    said: tuple[object, ...]
    parts: Mapping[str, float]

    def outcome(self, env: Env) -> float:
        return sum(value for name, value in self.parts.items() if env.reward_kinds[name] == "outcome")


def check_env(env: str | Callable[[], Env], *, n_tasks: int = 8) -> list[CheckResult]:
    """Check an environment. A check that fails is a row, never an exception.

    Args:
        env: an id, "module:Class", "path/to/file.py:Class", or a function that makes a fresh environment.
        n_tasks: how many tasks the oracle and the null policy play.

    Raises:
        UserError: the environment cannot be made at all.
    """
    return asyncio.run(_check_all((lambda: make(env)) if isinstance(env, str) else env, n_tasks))


async def _check_all(factory: Callable[[], Env], n_tasks: int) -> list[CheckResult]:
    checks: dict[str, Callable[[Callable[[], Env], Env, int], Awaitable[str]]] = {
        "tasks": _check_tasks,
        "tools": _check_tools,
        "contract": _check_contract,
        "reset": _check_reset,
        "determinism": _check_determinism,
        "oracle": _check_oracle,
        "null policy": _check_null,
    }
    results = []
    for name, check in checks.items():
        env = factory()
        try:
            results.append(CheckResult(name, True, await check(factory, env, n_tasks)))
        except _Fault as fault:
            results.append(CheckResult(name, False, str(fault)))
        except (Exception, SystemExit) as error:  # a boundary: whatever the author's code raises is what was found
            results.append(CheckResult(name, False, f"{type(error).__name__}: {error}"))
        try:
            await invoke(env.close)
        except Exception as error:
            results.append(CheckResult("close", False, f"{type(error).__name__}: {error}"))
    return results


async def _check_tasks(factory: Callable[[], Env], env: Env, n_tasks: int) -> str:
    """Tasks do not depend on the object that makes them, and train and test share none."""
    first = _tasks(env, n_tasks)
    other = factory()
    try:
        again = _tasks(other, n_tasks)
    finally:
        await invoke(other.close)
    if first != again:
        raise _Fault("two objects of the environment give different tasks; make_task and tasks must be pure functions")
    empty = [task.id for task in first if not task.prompt.strip()]
    if empty:
        raise _Fault(f"task {empty[0]} has an empty prompt")
    data = {split: env.tasks(split) for split in PROCEDURAL_SPLITS if env.tasks("train") is not None}
    shared = {t.id for t in data.get("train") or ()} & {t.id for t in data.get("test") or ()}
    if shared:
        raise _Fault(f"{len(shared)} tasks are both in train and in test, such as {sorted(shared)[0]}")
    faults = [fault for split in data for fault in env.data_faults(split)]
    note = f"; {len(faults)} known faults in the data: {' | '.join(faults[:3])}" if faults else ""
    return f"{len(first)} tasks are the same in a fresh object{note}"


async def _check_tools(factory: Callable[[], Env], env: Env, n_tasks: int) -> str:
    """Schemas are JSON and say what every tool and parameter is for."""
    for schema in env.tool_schemas:
        json.dumps(schema)
        function = schema.get("function", {})
        name, parameters = function.get("name"), function.get("parameters", {})
        if schema.get("type") != "function" or not name or parameters.get("type") != "object":
            raise _Fault(f'not an OpenAI function schema (type, function.name, parameters of type "object"): {schema}')
        if not function.get("description"):
            raise _Fault(f"tool {name} has no description; give it a docstring: the model reads it")
        missing = [key for key, value in parameters.get("properties", {}).items() if not value.get("description")]
        if missing:
            raise _Fault(f"tool {name} does not describe {', '.join(missing)}; write it under Args: in its docstring")
    return f"{len(env.tool_schemas)} tools, all described"


async def _check_contract(factory: Callable[[], Env], env: Env, n_tasks: int) -> str:
    """Every kind of mistake is answered, and what comes back has the promised types."""
    unknown = {kind for kind in env.reward_kinds.values() if kind not in get_args(RewardKind)}
    if unknown:
        raise _Fault(f"reward_kinds names {sorted(unknown)}; a part is 'outcome' or 'process'")
    task = _tasks(env, 1)[0]
    await _play(env, task, _clumsy)
    await _play(env, task, _null)
    return "reset and step keep the contract, and wrong calls are answered"


async def _check_reset(factory: Callable[[], Env], env: Env, n_tasks: int) -> str:
    """An episode is the same before and after another one was played."""
    first, *others = _tasks(env, 2)
    policy = _best(env)
    before = await _play(env, first, policy)
    for task in [*others, first]:
        await _play(env, task, _clumsy)
    if await _play(env, first, policy) != before:
        raise _Fault("the same episode went differently after others were played; reset must forget the last episode")
    return "an episode is the same after others were played"


async def _check_determinism(factory: Callable[[], Env], env: Env, n_tasks: int) -> str:
    """Equal seeds and actions give equal episodes in fresh objects."""
    other = factory()
    try:
        for task in _tasks(env, 2):
            for policy in (_best(env), _clumsy):
                if await _play(env, task, policy) != await _play(other, task, policy):
                    raise _Fault("equal seeds and actions gave different episodes; draw all chance from self.rng")
    finally:
        await invoke(other.close)
    return "equal seeds and actions give equal episodes"


async def _check_oracle(factory: Callable[[], Env], env: Env, n_tasks: int) -> str:
    """The oracle gets the whole outcome reward, so the tasks can be solved and the reward sees it."""
    if type(env).oracle is Env.oracle:
        raise _Fault("no oracle: define oracle(self, task, messages), to prove that the tasks can be solved")
    best = _maximum(env)
    for task in _tasks(env, n_tasks):
        got = (await _play(env, task, _oracle)).outcome(env)
        if abs(got - best) > _TOLERANCE:
            raise _Fault(f"the oracle got an outcome of {got:g} of {best:g} on task {task.id}")
    return f"the oracle gets the whole outcome reward, {best:g}, on {n_tasks} tasks"


async def _check_null(factory: Callable[[], Env], env: Env, n_tasks: int) -> str:
    """Saying nothing does not pay."""
    best = _maximum(env)
    for task in _tasks(env, n_tasks):
        if (await _play(env, task, _null)).outcome(env) >= best - _TOLERANCE:
            raise _Fault(f"an empty answer gets the whole outcome reward, {best:g}, on task {task.id}")
    return f"an empty answer gets less than {best:g} on {n_tasks} tasks"


def _tasks(env: Env, n: int) -> list[Task]:
    """Up to `n` tasks of the training split, or of the test split where there is no other."""
    try:
        source = TaskSource(env, "train")
    except DataError:
        source = TaskSource(env, "test")
    return [source.task(index) for index in range(n if source.size is None else min(n, source.size))]


def _maximum(env: Env) -> float:
    """The largest sum of the outcome parts: each is at most 1 before its weight."""
    if isinstance(env, ToolEnv):
        return sum(max(part.weight, 0.0) for part in env.reward_parts if part.kind == "outcome")
    return float(sum(kind == "outcome" for kind in env.reward_kinds.values()))


async def _play(env: Env, task: Task, policy: Policy) -> _Record:
    observation, info = checked_reset(await invoke(env.reset, seed=0, options={"task": task}))
    messages: list[Message] = list(observation)
    said: list[object] = [dump(messages), info.get("state_id")]
    parts: dict[str, float] = {}
    for _ in range(env.max_turns):
        action = await policy(env, task, tuple(messages))
        result, due = checked_step(env, await invoke(env.step, action))
        _add(parts, due)
        messages += [action, *result.observation]
        said += [dump(list(result.observation)), dict(due), result.info.get("state_id"), *result[2:4]]
        if result.terminated or result.truncated:
            break
    else:
        _add(parts, checked_parts(env, "conclude", await invoke(env.conclude, None)))
    return _Record(tuple(said), parts)


def _add(parts: dict[str, float], due: Mapping[str, float]) -> None:
    for name, value in due.items():
        parts[name] = parts.get(name, 0.0) + value


def _best(env: Env) -> Policy:
    return _null if type(env).oracle is Env.oracle else _oracle


async def _oracle(env: Env, task: Task, messages: Sequence[Message]) -> AssistantMessage:
    return await invoke(env.oracle, task, messages)


async def _null(env: Env, task: Task, messages: Sequence[Message]) -> AssistantMessage:
    return AssistantMessage(content="")


async def _clumsy(env: Env, task: Task, messages: Sequence[Message]) -> AssistantMessage:
    """An unreadable call, a call of an unknown tool and wrong arguments for each tool at once; then a wrong answer."""
    if any(isinstance(message, AssistantMessage) for message in messages):
        return AssistantMessage(content="I do not know.")
    names = [schema["function"]["name"] for schema in env.tool_schemas]
    wrong = [ToolCall(id=f"wrong{i}", name=name, arguments={"no such argument": i}) for i, name in enumerate(names)]
    unreadable = ToolCall(id="unreadable", name="", error="the call is not JSON")
    unknown = ToolCall(id="unknown", name="no_such_tool")
    return AssistantMessage(content="", tool_calls=(unreadable, unknown, *wrong))
