"""Real faults below the collector: tools and environments that hang, raise or answer nonsense.

For each: every episode that was begun is counted once, the cause is named, and nothing is left running.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import psutil
import pytest

from agentrl import AssistantMessage, Task, ToolCall, ToolEnv, reward, tool
from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.env.calling import _threads, invoke
from agentrl.env.tasks import TaskSource
from agentrl.errors import ConfigError, EnvDefinitionError, RunStoppedError
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.collector import Collector, Demand
from agentrl.rollout.settings import RetrySettings, RolloutSettings
from agentrl.trajectory import Group, Outcome

RENDERER = Renderer(ByteTokenizer(), HermesParser())
EPISODES = 12
RETRY = RetrySettings(backoff_s=0.001)
NEVER = RetrySettings(engine=0, env=0, tool=0, sandbox=0, verifier=0)


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """No task, no thread at work, no descriptor and no child more than before."""
    process = psutil.Process()
    tasks, descriptors, children = asyncio.all_tasks(), process.num_fds(), set(process.children())
    threads = (_threads.hung, _threads._running)  # of tests before this one
    yield
    for _ in range(6000):
        if (_threads.hung, _threads._running) > threads:
            await asyncio.sleep(0.01)
    gc.collect()
    assert asyncio.all_tasks() <= tasks | {asyncio.current_task()}
    assert _threads.hung <= threads[0]
    assert _threads._running <= threads[1]
    assert process.num_fds() <= descriptors
    assert set(process.children()) <= children


class Faulty(ToolEnv):
    """One call of `use`, then an answer. What is wrong is set on the class for a test."""

    max_turns = 3
    begun = 0
    wrong: Callable[[], Any] = staticmethod(lambda: "fine")

    def make_task(self, seed: int) -> Task:
        return Task(f"number {seed}")

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        type(self).begun += 1
        return await super().reset(seed=seed, options=options)

    @reward(kind="outcome")
    async def done(self, task: Task, episode: Any) -> float:
        return 1.0

    @tool(deadline_s=100)
    async def use(self) -> Any:
        """Use it."""
        value = self.wrong()
        return await value if asyncio.iscoroutine(value) else value


class Blocking(Faulty):
    """The same in a plain function."""

    @tool(deadline_s=100)
    def use(self) -> Any:  # type: ignore[override]
        """Use it."""
        return self.wrong()


class Impatient(Faulty):
    @tool(deadline_s=1.5)
    async def use(self) -> Any:
        """Use it."""
        return await super().use()


class ImpatientBlocking(Blocking):
    @tool(deadline_s=1.5)
    def use(self) -> Any:  # type: ignore[override]
        """Use it."""
        return super().use()


def collector_of(
    env: Callable[[], ToolEnv], *, demand: Demand | None = None, deadline_s: float = 200.0, **changes: Any
) -> Collector:
    settings = RolloutSettings(
        groups_per_step=4,
        group_size=changes.pop("group_size", 3),
        max_tokens_per_episode=50_000,
        max_tokens_per_turn=500,
        turn_deadline_s=deadline_s,
        concurrency=changes.pop("concurrency", 5),
        retry=changes.pop("retry", RETRY),
        **changes,
    )
    script = canned([AssistantMessage(tool_calls=(ToolCall(id="1", name="use", arguments={}),)), "bye"])
    tasks = TaskSource(Faulty(), "train")
    return Collector(tasks, env, ScriptedEngine(script), RENDERER, settings, seed=0, demand=demand)


async def collect(collector: Collector, step: int = 0) -> list[Group]:
    try:
        return await collector.collect(step)
    finally:
        await collector.close()


def count_once(groups: Sequence[Group], begun: int) -> None:
    """Each episode stands in the groups once, under a seed of its own."""
    played = [t for group in groups for t in group.played]
    assert len({t.seed for t in played}) == len(played) == begun
    assert sum(len(group.trajectories) for group in groups) == EPISODES


async def hang() -> None:
    await asyncio.sleep(3600)


def hang_polling() -> None:
    while True:
        time.sleep(0.01)


def break_down() -> None:
    raise ConnectionResetError("the database went away")


def told(answer: Any) -> Callable[[], Any]:
    return lambda: answer


TOOLS: dict[str, tuple[Callable[[], Any], str | None, str]] = {
    "raises": (break_down, "exception", "Error: ConnectionResetError: the database went away"),
    "100 MB of text": (lambda: "x" * 100_000_000, None, "characters left out ...]"),
    "100 MB of bytes": (lambda: b"\xff" * 100_000_000, None, "bytes left out ...]"),
    "100 MB of records": (lambda: [["x" * 1000]] * 100_000, None, "[... the rest is left out ...]"),
    "invalid UTF-8": (told(b"caf\xe9 \xff"), None, "caf\ufffd \ufffd"),
    "invalid UTF-8 within": (told({"out": b"\xff"}), None, '{"out": "\ufffd"}'),
    "lone surrogates": (told("a\ud800b"), None, "a?b"),
    "no JSON": (told({(1, 2): "a key that JSON cannot hold"}), "exception", "Error: TypeError: keys must be"),
    "itself": (told(list[Any]()), None, "[]"),
    "cancels itself": (lambda: _raise(asyncio.CancelledError("mine")), "exception", "CancelledError: mine"),
    "exits": (lambda: _raise(SystemExit(3)), "exception", "SystemExit: 3"),
}


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("fault", TOOLS)
@pytest.mark.parametrize("kind", [Faulty, Blocking])
async def test_whatever_a_tool_answers_the_episode_goes_on(kind: type[Faulty], fault: str) -> None:
    wrong, error, text = TOOLS[fault]
    env = type("Env", (kind,), {"begun": 0, "wrong": staticmethod(wrong)})
    groups = await collect(collector_of(env))
    count_once(groups, env.begun)
    for trajectory in (t for group in groups for t in group.played):
        assert trajectory.outcome is Outcome.TERMINATED
        (use,) = trajectory.turns[0].tools
        assert (use.name, use.error) == ("use", error)
        (answer,) = (message["content"] for message in trajectory.messages if message["role"] == "tool")
        assert text in answer
        assert len(answer) <= 8000


@pytest.mark.parametrize(("kind", "wrong"), [(Impatient, hang), (ImpatientBlocking, hang_polling)])
async def test_a_tool_that_hangs_is_answered_at_its_deadline_and_ends(kind: type[Faulty], wrong: Any) -> None:
    calls = Counter[str]()

    def sometimes() -> Any:
        calls["all"] += 1
        return wrong() if calls["all"] % 3 == 0 else "fine"

    env = type("Env", (kind,), {"begun": 0, "wrong": staticmethod(sometimes)})
    began = time.perf_counter()
    groups = await collect(collector_of(env))
    assert time.perf_counter() - began < 200, "a tool hangs for an hour"
    count_once(groups, env.begun)
    uses = [use for group in groups for t in group.played for turn in t.turns for use in turn.tools]
    assert [use.error for use in uses].count("timeout") == 4
    assert all(0.2 <= use.seconds < 200 for use in uses if use.error)
    told = [m["content"] for g in groups for t in g.played for m in t.messages if m["role"] == "tool"]
    assert told.count("Error: use did not answer within 1.5 s") == 4


async def test_a_tool_that_hangs_outside_of_python_holds_nobody_up() -> None:
    """Its thread cannot be ended; the episodes go on, and the process may end."""
    release = threading.Event()
    env = type("Env", (ImpatientBlocking,), {"begun": 0, "wrong": staticmethod(release.wait)})
    before = _threads.hung
    groups = await collect(collector_of(env))
    count_once(groups, env.begun)
    assert EPISODES <= _threads.hung <= before + EPISODES
    release.set()


async def test_no_episode_is_played_where_a_late_call_still_runs() -> None:
    """Every third call is late; the environment in which it runs is given to nobody else."""
    release, calls, places = threading.Event(), Counter[str](), list[list[str]]()

    def sometimes() -> Any:
        calls["all"] += 1
        return release.wait() if calls["all"] % 3 == 0 else "fine"

    class Late(ImpatientBlocking):
        wrong = staticmethod(sometimes)

        def __init__(self) -> None:
            self.tasks_here: list[str] = []
            places.append(self.tasks_here)

        def setup(self, task: Task) -> None:
            self.tasks_here.append(task.prompt)

    await collect(collector_of(Late, concurrency=1))
    release.set()
    assert [len(here) for here in places] == [3, 3, 3, 3]


async def test_many_hung_calls_are_warned_about() -> None:
    release = threading.Event()
    env = type("Env", (ImpatientBlocking,), {"begun": 0, "wrong": staticmethod(release.wait)})
    await collect(collector_of(env, concurrency=200, group_size=30))
    with pytest.warns(RuntimeWarning, match=r"blocking calls hang past their deadlines, and each keeps its thread"):
        await invoke(lambda: None)  # the next call is told
    release.set()


class Breaks(Faulty):
    """The method that is named breaks so many times."""

    where = ""
    how: Callable[[], Any] = staticmethod(break_down)
    left = 0

    def __init__(self) -> None:
        self._fault("__init__")

    def _fault(self, where: str) -> Any:
        owner = type(self)
        if owner.where != where or owner.left == 0:
            return None
        owner.left -= 1
        return owner.how()

    async def reset(self, **options: Any) -> Any:
        value = await super().reset(**options)
        return await self._perhaps("reset") or value

    async def step(self, action: AssistantMessage) -> Any:
        return await self._perhaps("step") or await super().step(action)

    async def conclude(self, action: AssistantMessage | None) -> Any:
        return await self._perhaps("conclude") or await super().conclude(action)

    async def _perhaps(self, where: str) -> Any:
        value = self._fault(where)
        return await value if asyncio.iscoroutine(value) else value


RAISED = "ConnectionResetError: the database went away"


@pytest.mark.parametrize("retry", [RETRY, NEVER], ids=["retried", "not retried"])
@pytest.mark.parametrize(
    ("where", "how", "error"),
    [
        ("reset", break_down, f"EnvFailure: reset of Env: {RAISED}"),
        ("step", break_down, f"EnvFailure: step of Env: {RAISED}"),
        ("conclude", break_down, f"EnvFailure: conclude of Env: {RAISED}"),
        ("step", hang, "EnvFailure: step did not return within 1.5 s"),
        ("reset", hang, "EnvFailure: reset did not return within 1.5 s"),
        ("conclude", hang, "EnvFailure: conclude did not return within 1.5 s"),
        ("step", told("nonsense"), "EnvFailure: step must return StepResult"),
    ],
)
async def test_an_environment_that_breaks_is_played_anew_or_counted(
    where: str, how: Any, error: str, retry: RetrySettings
) -> None:
    env = type("Env", (Breaks,), {"begun": 0, "where": where, "how": staticmethod(how), "left": 3})
    limits = {"max_turns": 1} if where == "conclude" else {}
    collector = collector_of(env, deadline_s=1.5 if how is hang else 200.0, retry=retry, **limits)
    groups = await collect(collector)
    count_once(groups, env.begun)
    failed = [t for group in groups for t in group.played if t.outcome.failed]
    assert [t.outcome for t in failed] == [Outcome.FAILED_ENV] * 3
    assert all(t.reward is None and error in str(t.error) for t in failed)
    again = retry is RETRY
    assert sum(len(group.valid) for group in groups) == (EPISODES if again else EPISODES - 3)
    assert sum(len(group.failed) for group in groups) == (3 if again else 0)
    assert sum(n for name, n in collector.metrics.items() if name.startswith("retried/")) == (3 if again else 0)


@pytest.mark.parametrize("error", [ConnectionResetError("the database went away"), EnvDefinitionError("no database")])
async def test_a_constructor_that_breaks_later_fails_an_episode_and_not_the_run(error: Exception) -> None:
    made = Counter[str]()
    env = type("Env", (Faulty,), {"wrong": staticmethod(lambda: asyncio.sleep(0.001, "fine"))})

    def make() -> Faulty:
        made["tries"] += 1
        if made["tries"] in (3, 4):
            raise error
        return env()

    groups = await collect(collector_of(make))
    failed = [t for group in groups for t in group.failed]
    assert [t.outcome for t in failed] == [Outcome.FAILED_ENV] * 2
    assert all(f"the environment could not be made: {type(error).__name__}: {error}" in str(t.error) for t in failed)
    assert sum(len(group.valid) for group in groups) == EPISODES


async def test_a_constructor_that_never_works_stops_the_run_and_is_named() -> None:
    def refuse() -> Faulty:
        raise ConfigError("no such database: give db=")

    with pytest.raises(ConfigError, match="no such database"):
        await collect(collector_of(refuse))

    def broken() -> Faulty:
        raise OSError("no disk")

    with pytest.raises(RunStoppedError, match=r"failed_env x\d+: EnvFailure: the environment could not be made: OSErr"):
        await collect(collector_of(broken))


@pytest.mark.parametrize(("kind", "wrong"), [(Faulty, hang), (Blocking, hang_polling)])
async def test_a_collection_cancelled_over_a_hanging_tool_ends_at_once(kind: type[Faulty], wrong: Any) -> None:
    env = type("Env", (kind,), {"begun": 0, "wrong": staticmethod(wrong)})
    collecting = asyncio.create_task(collect(collector_of(env)))
    for _ in range(3000):
        if env.begun < 5:
            await asyncio.sleep(0.01)
    assert env.begun == 5
    began = time.perf_counter()
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    assert time.perf_counter() - began < 200, "a tool hangs for an hour"


@pytest.mark.parametrize(("tool_s", "update_s"), [(0.0, 0.1), (0.1, 0.0)], ids=["slow learner", "slow collector"])
async def test_at_any_speed_of_learner_and_collector_each_episode_is_handed_over_once(
    tool_s: float, update_s: float
) -> None:
    steps, ahead = 5, 2
    env = type("Env", (Faulty,), {"begun": 0, "wrong": staticmethod(lambda: asyncio.sleep(tool_s, "fine"))})
    collector = collector_of(env, demand=Demand(max_staleness=ahead, steps=steps), concurrency=64)
    groups, ahead_groups = [], []
    try:
        for step in range(steps):
            groups += await collector.collect(step)
            ahead_groups.append(collector.metrics["ahead_groups"])
            await asyncio.sleep(update_s)
    finally:
        await collector.close()
    played = [t for group in groups for t in group.played]
    assert len({group.group_id for group in groups}) == len(groups) == 4 * steps
    assert len({t.seed for t in played}) == len(played) == env.begun == 4 * steps * 3
    assert max(ahead_groups) <= 4 * ahead  # a slow learner is not run away from
    assert ahead_groups[-1] == 0
