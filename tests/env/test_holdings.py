"""What tools hold: opened once, closed in the right order, shared by environments, and never kept when it failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from agentrl import AssistantMessage, Task, ToolCall, ToolEnv, reward, tool
from agentrl.env import Episode, Holdings, holdings
from agentrl.errors import EnvDefinitionError, ToolFailure

Log = list[str]


def opening(log: Log, name: str, *, fails: bool = False) -> Callable[[], AbstractAsyncContextManager[str]]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        await asyncio.sleep(0.01)
        if fails:
            raise ToolFailure(name)
        log.append(f"open {name}")
        yield f"{name}{len(log)}"
        log.append(f"close {name}")

    return opened


async def test_an_episode_opens_once_and_closes_the_latest_first() -> None:
    log: Log = []
    async with Holdings() as held:
        found = await asyncio.gather(*(held.for_episode("a", opening(log, "a")) for _ in range(9)))
        assert found == ["a1"] * 9
        assert await held.for_episode("b", opening(log, "b")) == "b2"
        await held.end_episode()
        assert log == ["open a", "open b", "close b", "close a"]
        assert await held.for_episode("a", opening(log, "a")) == "a5"
    assert log[-1] == "close a"


async def test_what_fails_is_not_kept() -> None:
    log: Log = []
    async with Holdings() as held:
        for ask in (held.for_episode, held.shared):
            with pytest.raises(ToolFailure):
                await ask("a", opening(log, "a", fails=True))
            assert (await ask("a", opening(log, "a"))).startswith("a")


async def test_dropping_closes_what_is_still_held_and_nothing_newer() -> None:
    log: Log = []
    async with Holdings() as held:
        first = await held.for_episode("a", opening(log, "a"))
        await held.drop("a", first)
        assert log == ["open a", "close a"]
        second = await held.for_episode("a", opening(log, "a"))
        await held.drop("a", first)
        assert await held.for_episode("a", opening(log, "a")) == second


async def test_what_is_shared_is_closed_with_the_last_that_uses_it() -> None:
    log: Log = []
    held = [Holdings() for _ in range(5)]
    found = await asyncio.gather(*(each.shared("p", opening(log, "p")) for each in held for _ in range(2)))
    assert set(found) == {"p1"}
    for each in held[:-1]:
        await each.close()
        await each.close()
    assert log == ["open p"]
    await held[-1].close()
    assert log == ["open p", "close p"]
    assert await held[0].shared("p", opening(log, "p")) == "p3"
    await held[0].close()


async def test_one_that_is_cancelled_while_opening_leaves_it_to_the_others() -> None:
    log: Log = []
    first, second = Holdings(), Holdings()
    impatient = asyncio.create_task(first.shared("p", opening(log, "p")))
    patient = asyncio.create_task(second.shared("p", opening(log, "p")))
    await asyncio.sleep(0.001)
    impatient.cancel()
    assert await patient == "p1"
    await second.close()
    assert log == ["open p"]
    await first.close()
    assert log == ["open p", "close p"]


def test_event_loops_share_nothing() -> None:
    log: Log = []

    async def use() -> None:
        async with Holdings() as held:
            await held.shared("p", opening(log, "p"))

    asyncio.run(use())
    asyncio.run(use())
    assert log == ["open p", "close p"] * 2


class Holder(ToolEnv):
    """Its tool, its setup and its reward use what is held."""

    max_turns = 3

    def __init__(self) -> None:
        self.log: Log = []

    def make_task(self, seed: int) -> Task:
        return Task("use it")

    async def setup(self, task: Task) -> None:
        await holdings().for_episode("s", opening(self.log, "s"))

    @tool
    async def use(self, fail: bool = False) -> str:
        """Use it."""
        value = await holdings().for_episode("t", opening(self.log, "t"))
        if fail:
            raise ToolFailure("broken")
        return value

    @reward(kind="outcome")
    async def judged(self, task: Task, episode: Episode) -> float:
        self.log.append("judge")
        return float((await holdings().for_episode("s", opening(self.log, "again"))).startswith("s"))


def using(**arguments: object) -> AssistantMessage:
    return AssistantMessage(tool_calls=(ToolCall(id="1", name="use", arguments=arguments),))


@pytest.mark.parametrize("way", ["answer", "turns", "cut", "failure", "reset", "close"])
async def test_an_episode_that_ends_in_any_way_gives_back_what_it_held(way: str) -> None:
    env = Holder()
    await env.reset(seed=1)
    await env.step(using())
    if way == "answer":
        assert (await env.step(AssistantMessage(content="done"))).reward == 1
    elif way == "turns":
        await env.step(using())
        assert (await env.step(using())).truncated
    elif way == "cut":
        assert await env.conclude(None) == {"judged": 1.0}
    elif way == "failure":
        with pytest.raises(ToolFailure):
            await env.step(using(fail=True))
    elif way == "reset":
        await env.reset(seed=2)
    else:
        await env.close()
    judged = ["judge"] if way in ("answer", "turns", "cut") else []
    assert env.log[:2] == ["open s", "open t"]
    assert env.log[2 : 4 + len(judged)] == [*judged, "close t", "close s"]


async def test_outside_of_an_episode_there_is_nothing_to_hold() -> None:
    with pytest.raises(EnvDefinitionError, match="there is no episode"):
        holdings()
    held = Holdings()
    with held.at_hand():
        assert holdings() is held
    with pytest.raises(EnvDefinitionError):
        holdings()
