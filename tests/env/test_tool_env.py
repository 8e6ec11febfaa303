"""Playing a ToolEnv: turns, answers, rewards, limits, and that nothing a policy says raises."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl import AssistantMessage, Episode, Task, ToolCall, ToolEnv, ToolFailure, TurnView, reward, tool
from agentrl.env import StepResult
from agentrl.errors import EnvDefinitionError, EnvFailure
from agentrl.messages import SystemMessage, ToolMessage, UserMessage
from agentrl.tools.calculator import calculator
from agentrl.trajectory import ToolUse
from tests.env.orders import Orders, Sleepy, say


async def test_an_episode_from_prompt_to_reward() -> None:
    env = Orders()
    observation, info = await env.reset(seed=3)
    task = env.make_task(3)
    assert list(observation) == [SystemMessage(content=env.system_prompt), UserMessage(content=task.prompt)]
    assert info == {"state_id": "50"}

    order_id = f"#W{task.data['order']:04}"
    step = await env.step(say(("find_order", {"order_id": order_id})))
    answer = ToolMessage(content=f'{{"item": "{task.answer}"}}', name="find_order", call_id="c0")
    metrics, used = {"tool_calls": 1, "tool_errors": 0}, (ToolUse("find_order", 0.0),)
    info = {"rewards": {"valid_call": 0.1}, "metrics": metrics, "tools": used, "state_id": "50"}
    assert step == StepResult((answer,), 0.1, False, False, info)
    assert step.info["tools"][0].seconds > 0

    final = await env.step(AssistantMessage(content=task.answer))
    assert (final.observation, final.terminated, final.truncated) == ((), True, False)
    assert final.info["rewards"] == {"valid_call": 0.0, "correct": 1.0}
    assert final.reward == 1.0
    assert await env.conclude(None) == {}


async def test_calls_are_answered_in_order_and_errors_are_counted() -> None:
    env = Orders()
    await env.reset(options={"task": env.make_task(1)})
    broken = ToolCall(id="b", name="", error="the call is not JSON")
    action = say(
        ("nothing", {}),
        ("find_order", {}),
        ("find_order", {"order_id": "#W9999"}),
        ("find_order", {"order_id": "#W0001"}),
        ("delete_order", {"order_id": "#W0002"}),
    )
    action = AssistantMessage(tool_calls=(broken, *action.tool_calls))
    step = await env.step(action)
    contents = [message.content for message in step.observation]
    assert contents == [
        "Error: the call is not JSON",
        "Error: there is no tool 'nothing'; the tools are: find_order, delete_order",
        "Error: bad arguments for find_order: order_id: Field required",
        "Error: KeyError: '#W9999'",
        '{"item": "chair"}',
        "deleted",
    ]
    assert [message.call_id for message in step.observation] == ["b", "c0", "c1", "c2", "c3", "c4"]
    kinds = ("malformed", "unknown_tool", "bad_arguments", "exception")
    errors = {f"tool_error/{kind}": 1 for kind in kinds}
    assert step.info["metrics"] == {"tool_calls": 6, "tool_errors": 4, **errors}
    assert step.info["rewards"] == {"valid_call": 0.0}
    assert step.info["state_id"] == "49"
    again = await env.step(say(("nothing", {})))
    assert again.info["metrics"] == {"tool_calls": 7, "tool_errors": 5, **errors, "tool_error/unknown_tool": 2}


async def test_max_turns_truncates_with_the_outcome_parts() -> None:
    env = Orders()
    env.max_turns = 2
    await env.reset(seed=0)
    call = say(("find_order", {"order_id": "#W0001"}))
    assert not (await env.step(call)).truncated
    last = await env.step(call)
    assert (last.terminated, last.truncated) == (False, True)
    assert last.info["rewards"] == {"valid_call": 0.1, "correct": 0.0}
    assert len(last.observation) == 1  # the call was still made and answered
    with pytest.raises(EnvFailure, match="the episode has ended"):
        await env.step(call)


async def test_an_answer_in_the_last_turn_terminates() -> None:
    env = Orders()
    env.max_turns = 1
    await env.reset(seed=0)
    final = await env.step(AssistantMessage(content=env.task.answer))
    assert (final.terminated, final.truncated, final.info["rewards"]["correct"]) == (True, False, 1.0)


async def test_conclude_gives_the_outcome_parts_once_and_sees_the_cut_action() -> None:
    seen: list[Episode] = []

    class Watched(Orders):
        @reward("outcome")
        def correct(self, task: Task, episode: Episode) -> float:
            seen.append(episode)
            return float(episode.final_text == task.answer)

    env = Watched()
    assert await env.conclude(None) == {}  # before any episode
    await env.reset(seed=0)
    await env.step(say(("find_order", {"order_id": "#W0001"}), content="let me see"))
    assert await env.conclude(AssistantMessage(content=env.task.answer)) == {"correct": 1.0}
    assert await env.conclude(None) == {}
    assert seen[0].truncated
    assert len(seen[0].turns) == 1
    assert [m.role for m in seen[0].messages] == ["system", "user", "assistant", "tool", "assistant"]

    await env.reset(seed=0)
    assert await env.conclude(None) == {"correct": 0.0}
    assert seen[1].final_text == ""


def test_final_text_is_the_last_answer_only() -> None:
    task, said = Task("?"), AssistantMessage(content="42")
    assert Episode(task, (UserMessage(content="?"), said), ()).final_text == "42"
    assert Episode(task, (said, ToolMessage(content="7")), ()).final_text == ""
    assert Episode(task, (say(("f", {}), content="42"),), ()).final_text == ""
    assert Episode(task, (), ()).final_text == ""


async def test_reset_forgets_the_last_episode_even_a_half_played_one() -> None:
    env = Orders()
    await env.reset(seed=0)
    await env.step(say(("delete_order", {"order_id": "#W0001"}), ("nothing", {})))
    _, info = await env.reset(seed=0)
    assert info == {"state_id": "50"}
    step = await env.step(say(("find_order", {"order_id": "#W0001"})))
    assert step.info["metrics"] == {"tool_calls": 1, "tool_errors": 0}


async def test_a_reset_that_fails_leaves_no_episode_to_step() -> None:
    class Fragile(Orders):
        def setup(self, task: Task) -> None:
            if task.prompt == "bad":
                raise OSError("no disk")
            super().setup(task)

    env = Fragile()
    await env.reset(seed=0)
    with pytest.raises(OSError, match="no disk"):
        await env.reset(options={"task": Task("bad")})
    with pytest.raises(EnvFailure, match="came before reset"):
        await env.step(AssistantMessage(content="lamp"))
    assert await env.conclude(None) == {}


async def test_step_wants_a_reset_first() -> None:
    with pytest.raises(EnvFailure, match=r"orders: step\(\) came before reset\(\)"):
        await Orders().step(say())


async def test_equal_seeds_give_equal_chance() -> None:
    class Dice(Sleepy):
        @tool
        async def roll(self) -> str:
            """Roll a die."""
            return str(self.rng.randrange(10**9))

    async def rolls(seed: int) -> list[str]:
        env = Dice()
        await env.reset(seed=seed)
        return [m.content for m in (await env.step(say(*[("roll", {})] * 3))).observation]

    assert await rolls(1) == await rolls(1)
    assert await rolls(1) != await rolls(2)


class AsyncOrders(Orders):
    @reward(kind="outcome")
    async def correct(self, task: Task, episode: Episode) -> float:
        return 1.0

    @reward(kind="process", weight=0.1)
    async def valid_call(self, turn: TurnView) -> float:
        return 1.0


async def test_a_turn_of_one_async_call_never_leaves_the_event_loop() -> None:
    env = AsyncOrders()
    await env.reset(seed=0)
    ticks: list[int] = []
    asyncio.get_running_loop().call_soon(ticks.append, 1)
    await env.step(say(("delete_order", {"order_id": "#W0001"})))
    await env.step(AssistantMessage(content="lamp"))
    assert not ticks


async def test_a_blocking_reward_stalls_nobody_else() -> None:
    release = threading.Event()

    class Blocking(Orders):
        @reward(kind="outcome")
        def correct(self, task: Task, episode: Episode) -> float:
            return float(release.wait(30))

    env = Blocking()
    await env.reset(seed=0)
    step = asyncio.create_task(env.step(AssistantMessage(content="lamp")))
    await asyncio.sleep(0.01)  # the loop goes on while the reward waits in its thread
    assert not step.done()
    release.set()
    assert (await step).reward >= 1.0


class Meeting(Sleepy):
    """Tools that end when eight calls have met."""

    def __init__(self) -> None:
        self.lock, self.here, self.all_here = threading.Lock(), 0, threading.Event()

    def arrive(self) -> None:
        with self.lock:
            self.here += 1
            if self.here == 8:
                self.all_here.set()

    @tool(deadline_s=60)
    def meet_blocking(self) -> str:
        """Wait in a thread."""
        self.arrive()
        self.all_here.wait()
        return "blocked"

    @tool(deadline_s=60)
    async def meet(self) -> str:
        """Wait in the event loop."""
        self.arrive()
        while not self.all_here.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return "slept"


async def test_the_calls_of_a_turn_run_together() -> None:
    env = Meeting()
    await env.reset(seed=0)
    step = await env.step(say(*[("meet_blocking", {}), ("meet", {})] * 4))
    assert [m.content for m in step.observation] == ["blocked", "slept"] * 4


async def test_a_tool_that_never_comes_back_is_answered_at_its_deadline() -> None:
    env = Sleepy()
    await env.reset(seed=0)
    started = time.monotonic()
    step = await env.step(say(("hang", {}), ("sleep", {"seconds": 0.01}), ("stall", {})))
    assert time.monotonic() - started < 60  # one of the tools would take an hour
    assert [m.content for m in step.observation] == [
        "Error: hang did not answer within 0.2 s",
        "slept 0.01",
        "Error: stall did not answer within 0.2 s",
    ]
    assert step.info["metrics"]["tool_error/timeout"] == 2


async def test_64_episodes_at_once() -> None:
    """Blocking, sleeping and hung tools side by side: all end within one deadline, and none disturbs another."""

    busy: list[float] = []

    class Measured(Sleepy):
        @tool
        def block(self, seconds: float) -> str:
            """Block a thread."""
            began = time.monotonic()
            said = super().block(seconds)
            busy.append(time.monotonic() - began)
            return said

    async def play(index: int) -> list[str]:
        env = Measured()
        await env.reset(seed=index)
        first = say(("hang", {})) if index % 8 == 0 else say(("block", {"seconds": 0.05}))
        contents = [m.content for m in (await env.step(first)).observation]
        for _ in range(3):
            step = await env.step(say(("block", {"seconds": 0.05}), ("sleep", {"seconds": 0.05})))
            contents += [m.content for m in step.observation]
        final = await env.step(AssistantMessage(content="done"))
        assert final.terminated
        assert final.reward == 1.0
        return contents

    started = time.monotonic()
    played = await asyncio.gather(*(play(index) for index in range(64)))
    elapsed = time.monotonic() - started
    hung, well = "Error: hang did not answer within 0.2 s", "blocked 0.05"
    for index, contents in enumerate(played):
        assert contents == [hung if index % 8 == 0 else well, *["blocked 0.05", "slept 0.05"] * 3]
    assert elapsed < sum(busy) / 2  # nearly that sum, 12 s, if one call waited for another


async def test_a_cancelled_step_leaves_no_half_turn() -> None:
    env = Sleepy()
    await env.reset(seed=0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await env.step(say(("sleep", {"seconds": 60}), ("block", {"seconds": 0.01})))
    step = await env.step(say(("sleep", {"seconds": 0})))
    assert step.info["metrics"]["tool_calls"] == 1
    assert await env.conclude(None) == {"done": 1.0}


async def test_a_broken_tool_fails_the_step_and_stops_its_neighbours() -> None:
    stopped = asyncio.Event()

    class Broken(Sleepy):
        @tool
        async def broken(self) -> str:
            """Break."""
            raise ToolFailure("the database is gone")

        @tool
        async def wait(self) -> str:
            """Wait."""
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()
            return ""

    env = Broken()
    await env.reset(seed=0)
    with pytest.raises(ToolFailure, match="the database is gone"):
        await env.step(say(("wait", {}), ("broken", {})))
    assert stopped.is_set()


async def test_extra_tools_are_offered_beside_the_methods() -> None:
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    class Extra(Orders):
        extra_tools = (calculator, double)

    env = Extra()
    names = [schema["function"]["name"] for schema in env.tool_schemas]
    assert names == ["find_order", "delete_order", "calculator", "double"]
    await env.reset(seed=0)
    step = await env.step(say(("calculator", {"expression": "6*7"}), ("double", {"x": 21})))
    assert [m.content for m in step.observation] == ["42", "42"]


def test_two_tools_of_one_name_are_refused() -> None:
    class Twice(Orders):
        extra_tools = (Orders().delete_order,)

    with pytest.raises(EnvDefinitionError, match="Twice has more than one tool named 'delete_order'"):
        _ = Twice().tools


async def test_setup_may_be_async_and_may_change_the_prompt() -> None:
    class Prepared(Sleepy):
        async def setup(self, task: Task) -> None:
            await asyncio.sleep(0)
            self.system_prompt = f"Today is day {task.data['day']}."

    env = Prepared()
    observation, info = await env.reset(options={"task": Task("hello", data={"day": 3})})
    assert [m.content for m in observation] == ["Today is day 3.", "hello"]
    assert info == {}


def test_reward_parts_and_kinds_are_declared() -> None:
    env = Orders()
    assert env.reward_kinds == {"correct": "outcome", "valid_call": "process"}
    assert [(part.name, part.weight) for part in env.reward_parts] == [("correct", 1.0), ("valid_call", 0.1)]


def test_names_are_in_snake_case_unless_given() -> None:
    class HTTPShop(ToolEnv): ...

    class ShopOrders(HTTPShop):
        name = "shop"

    class Child(ShopOrders): ...

    assert [cls.name for cls in (HTTPShop, ShopOrders, Child)] == ["http_shop", "shop", "child"]


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)
names = st.sampled_from(["find_order", "delete_order", "find_orders", ""]) | st.text(
    st.characters(exclude_categories=("Cs",)), max_size=8
)
calls = st.builds(
    ToolCall,
    id=st.just("x"),
    name=names,
    arguments=st.dictionaries(
        st.sampled_from(["order_id", "self", "p0"]) | st.text(max_size=4), json_values, max_size=3
    )
    | st.fixed_dictionaries({"order_id": st.sampled_from(["#W0001", "#W0002", "nope"])}),
    error=st.none() | st.just("not JSON"),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(calls, max_size=4), min_size=1, max_size=6))
def test_nothing_a_policy_says_raises(turns: list[list[ToolCall]]) -> None:
    async def play() -> None:
        env = Orders()
        await env.reset(seed=0)
        errors = 0
        for turn in turns:
            step = await env.step(AssistantMessage(content="", tool_calls=tuple(turn)))
            assert len(step.observation) == len(turn)
            for message in step.observation:
                message.content.encode("utf-8")
                errors += message.content.startswith("Error: ")
            assert math.isclose(step.reward, sum(step.info["rewards"].values()))
            assert step.info["metrics"]["tool_errors"] == errors
            assert step.terminated == (not turn)
            if step.terminated or step.truncated:
                assert "correct" in step.info["rewards"]
                return
            assert "correct" not in step.info["rewards"]

    asyncio.run(play())
