"""Threads that cannot be exhausted, calls that run together, marks on classes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time

import pytest

from agentrl.env.calling import invoke, mark, marked, together
from agentrl.env.threads import Threads
from agentrl.errors import EnvDefinitionError, ToolFailure


async def test_a_coroutine_function_runs_in_place() -> None:
    ticks: list[int] = []
    asyncio.get_running_loop().call_soon(ticks.append, 1)

    async def where() -> threading.Thread:
        return threading.current_thread()

    assert await invoke(where) is threading.current_thread()
    assert not ticks, "the event loop turned, so the call was not made in place"


async def test_a_plain_function_runs_in_a_thread_with_the_task_s_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")
    thread, value = await invoke(lambda: (threading.current_thread(), variable.get()))
    assert thread is not threading.current_thread()
    assert value == "here"


async def test_a_plain_function_may_return_a_coroutine() -> None:
    async def inner(x: int) -> int:
        return x + 1

    assert await invoke(lambda x: inner(x), 1) == 2


async def test_errors_come_back_from_threads() -> None:
    with pytest.raises(KeyError, match="gone"):
        await invoke({}.__getitem__, "gone")
    with pytest.raises(RuntimeError):  # a coroutine cannot raise StopIteration itself
        await invoke(next, iter(()))
    with pytest.raises(SystemExit):
        await invoke(exit_now)


def exit_now() -> None:
    raise SystemExit(3)


async def test_threads_are_used_again() -> None:
    threads = Threads(limit=8)
    seen = [await threads.run(threading.get_ident) for _ in range(20)]
    assert len(set(seen)) == 1


async def test_at_most_limit_calls_run_at_once_and_all_get_their_turn() -> None:
    threads = Threads(limit=3)
    lock, running, most, three = threading.Lock(), 0, 0, threading.Barrier(3)

    def work(index: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        three.wait(60)  # each meets two others
        time.sleep(0.01)
        with lock:
            running -= 1
        return index

    results = await asyncio.gather(*(threads.run(work, index) for index in range(21)))
    assert results == list(range(21))
    assert most == 3


async def test_hung_calls_do_not_keep_others_waiting() -> None:
    threads = Threads(limit=2)
    release = threading.Event()
    hung = [asyncio.ensure_future(threads.run(release.wait)) for _ in range(2)]
    waiting = asyncio.ensure_future(threads.run(lambda: "ran"))
    await asyncio.sleep(0.02)
    assert not waiting.done()  # both places are taken
    hung[0].cancel()
    assert await asyncio.wait_for(waiting, 60) == "ran"  # the abandoned call's place was free at once
    hung[1].cancel()
    for _ in range(5):
        assert await asyncio.wait_for(threads.run(lambda: "again"), 60) == "again"
    release.set()


async def test_an_abandoned_call_that_polls_ends_and_its_thread_with_it() -> None:
    threads = Threads(limit=2)
    seen: list[threading.Thread] = []

    def poll() -> None:
        seen.append(threading.current_thread())
        while True:
            time.sleep(0.005)

    call = asyncio.ensure_future(threads.run(poll))
    while not seen:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    seen[0].join(60)
    assert not seen[0].is_alive()
    assert threads.hung == 0


async def test_calls_abandoned_at_any_moment_leave_the_others_whole() -> None:
    """Some have just ended, some have not begun: no thread dies of it, and every other call gets its own result."""
    threads, died = Threads(limit=4), []
    before, threading.excepthook = threading.excepthook, died.append
    try:
        calls = [asyncio.ensure_future(threads.run(lambda i=i: (time.sleep(0.0005 * (i % 3)), i))) for i in range(400)]
        for index, call in enumerate(calls):
            if index % 4 == 0:
                await asyncio.sleep(0.0005)
            if index % 2:
                call.cancel()
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
    finally:
        threading.excepthook = before
    assert list(results[::2]) == [(None, index) for index in range(0, 400, 2)]
    assert await asyncio.wait_for(threads.run(lambda: "free"), 60) == "free"
    assert not died


async def test_a_cancelled_call_that_waits_never_runs() -> None:
    threads = Threads(limit=1)
    release, ran = threading.Event(), []
    first = asyncio.ensure_future(threads.run(release.wait))
    second = asyncio.ensure_future(threads.run(ran.append, 1))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0.01)
    release.set()
    assert await first
    assert await threads.run(lambda: "free") == "free"
    assert not ran


def test_a_call_that_outlives_its_loop_frees_its_place() -> None:
    threads = Threads(limit=1)
    release = threading.Event()

    async def abandon() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await threads.run(release.wait)

    asyncio.run(abandon())
    release.set()
    assert asyncio.run(asyncio.wait_for(threads.run(lambda: 1), 60)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    threads = Threads(limit=1)
    assert asyncio.run(threads.run(lambda: 1)) == 1  # leaves an idle thread, which the child will not have
    child = os.fork()
    if child == 0:
        try:
            os._exit(asyncio.run(asyncio.wait_for(threads.run(lambda: 7), 60)))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


async def test_together_keeps_the_order_whoever_ends_first() -> None:
    async def late(index: int) -> int:
        await asyncio.sleep(0.02 * (3 - index))
        return index

    assert await together([late(index) for index in range(4)]) == [0, 1, 2, 3]
    assert await together([]) == []


async def test_together_raises_the_failure_itself_and_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def fail(name: str) -> None:
        await asyncio.sleep(0)
        raise ToolFailure(name)

    with pytest.raises(ToolFailure, match="first"):
        await together([wait(), fail("first"), fail("second")])
    assert cancelled.is_set()


def test_marks_are_found_base_classes_first_in_order() -> None:
    class Base:
        def b(self) -> None: ...
        def a(self) -> None: ...

    class Child(Base):
        def c(self) -> None: ...

    for function in (Base.b, Base.a, Child.c):
        mark(function, "note", function.__name__)
    assert list(marked(Child, "note")) == ["b", "a", "c"]


def test_an_override_must_be_marked_or_dropped() -> None:
    class Base:
        def found(self) -> None: ...

    mark(Base.found, "note", 1)

    class Forgot(Base):
        def found(self) -> None: ...

    class Dropped(Base):
        found = None  # type: ignore[assignment]

    with pytest.raises(EnvDefinitionError, match=r"Forgot\.found overrides .* put @note above it"):
        marked(Forgot, "note")
    assert marked(Dropped, "note") == {}
