"""The client over several servers: some are killed, stopped, or answer nonsense. And the wire, given anything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.sandbox import HttpPool, Limits, RunResult, SandboxError
from agentrl.sandbox.remote.address import Address
from agentrl.sandbox.remote.http import Refused, answer, read_head
from agentrl.sandbox.remote.wire import decode_run, decode_work, encode_run, encode_work
from tests.processes import still_running
from tests.sandbox.serving import TOKEN, serving, until

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STATUS = answer(200, {"tier": "zygote"})


@asynccontextmanager
async def pretending(then: Answer) -> AsyncIterator[str]:
    """The address of something that answers well when asked for its status, and with `then` when asked for work."""
    asked: set[asyncio.Task[None] | None] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.add(asyncio.current_task())
        with suppress(asyncio.CancelledError):
            if b"/v1/status" in await reader.readuntil(b"\r\n\r\n"):
                writer.write(STATUS)
            else:
                await then(reader, writer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in asked:
            if task is not None:
                task.cancel()


def saying(data: bytes) -> Answer:
    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return then


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(600)


BROKEN = {
    "500": saying(answer(500, {"error": "broken"})),
    "502 in html": saying(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>"),
    "nothing": saying(b""),
    "no http": saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "cut": saying(answer(200, {"run": {}})[:-3]),
    "no length": saying(b"HTTP/1.1 200 OK\r\n\r\n{}"),
    "too long": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}"),
    "no json": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"),
    "endless headers": saying(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000),
    "reset": resetting,
    "silent": silent,
}
NONSENSE = {
    "no result": saying(answer(200, {})),
    "no status": saying(answer(200, {"run": {"status": "fine", "files": {}}})),
    "ok, of no tier": saying(answer(200, {"run": {"status": "ok", "files": {}}})),
    "ok, of a weak tier": saying(answer(200, {"run": {"status": "ok", "tier": "none", "files": {}}})),
    "strange": saying(answer(200, {"run": {"status": "ok", "tier": "zygote", "files": {}, "reward": 1}})),
    "400": saying(answer(400, {"error": "no"})),
}


def pool_of(*addresses: str, **settings: object) -> HttpPool:
    chosen = {"patience_s": 60.0, "silence_s": 20.0, "attempts": 2, **settings}
    return HttpPool(addresses, token=TOKEN, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", [*BROKEN, *NONSENSE])
async def test_a_server_that_fails_is_no_score(way: str) -> None:
    async with pretending((BROKEN | NONSENSE)[way]) as address, pool_of(address, attempts=1, silence_s=2.0) as pool:
        result, called = await asyncio.gather(pool.run("print(1)"), pool.call("def f(): return 1", "f"))
    assert (result.status, called.run.status, called.value) == ("infra_error", "infra_error", None)
    assert result.error


async def test_work_goes_to_another_server_when_one_fails() -> None:
    with serving() as good:
        for way, then in list(BROKEN.items())[:-1]:  # one that is silent is among those that are killed or stopped
            async with pretending(then) as bad, pool_of(bad, good.address) as pool:
                results = await asyncio.gather(*(pool.run(f"print({n})") for n in range(4)))
            assert [result.stdout for result in results] == ["0\n", "1\n", "2\n", "3\n"], way


async def test_servers_that_are_killed_or_stopped_in_mid_run() -> None:
    """What ran there is done anew elsewhere; nothing of it is left."""
    with serving() as first, serving() as second, serving() as third:
        async with first.pool(second.address, third.address, silence_s=6.0, attempts=5) as pool:
            running = [asyncio.create_task(pool.run(f"import time; time.sleep(0.8); print({n})")) for n in range(9)]
            await asyncio.sleep(0.6)
            below = first.below()
            first.kill()
            second.kill(signal.SIGSTOP)
            assert still_running(below) == []
            results = [await each for each in running]
            assert [result.stdout for result in results] == [f"{n}\n" for n in range(9)]
            second.kill()
            third.kill()
            began = time.monotonic()
            last = await pool.run("print(1)", limits=Limits(wall_s=1))
            assert last.status == "infra_error"
            assert time.monotonic() - began < 120  # its patience is that of a minute


async def test_who_is_told_to_wait_waits() -> None:
    times: list[float] = []

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            writer.write(answer(429, {"error": "full"}, {"Retry-After": "1"}))
        else:
            result = encode_run(RunResult("ok", tier="zygote", stdout="done"))
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" + answer(200, {"run": result}))

    async with pretending(busy) as address, pool_of(address) as pool:
        assert (await pool.run("1")).stdout == "done"
    assert len(times) == 2
    assert times[1] - times[0] >= 0.8


async def test_who_is_busy_for_ever_is_given_up() -> None:
    full = saying(answer(503, {"error": "full"}, {"Retry-After": "30"}))
    async with pretending(full) as address, pool_of(address, patience_s=0.3) as pool:
        result = await pool.run("1", limits=Limits(wall_s=0.2))
    assert (result.status, "503: full" in result.error) == ("infra_error", True)


async def test_the_same_key_at_each_attempt_and_another_for_each_run() -> None:
    keys: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/status" in head:
            writer.write(STATUS)
        else:
            keys.append(head.partition(b"Idempotency-Key: ")[2].partition(b"\r\n")[0])
            writer.write(answer(500, {}))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server, pool_of("http://{}:{}".format(*server.sockets[0].getsockname())) as pool:
        await pool.run("1")
        await pool.run("1")
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert all(keys)


async def test_a_cancelled_run_leaves_no_connection() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with pretending(silent) as address, pool_of(address, silence_s=30) as pool:
        running = [asyncio.create_task(pool.run("1")) for _ in range(5)]
        await until(lambda: [server.under_way for server in pool.servers] == [5])
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert [server.under_way for server in pool.servers] == [0]
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_where_nobody_is_there() -> None:
    with pytest.raises(SandboxError, match=r"no server can be had: 127\.0\.0\.1:9: "):
        await pool_of("http://127.0.0.1:9").__aenter__()
    assert (await pool_of("http://127.0.0.1:9").run("1")).error.startswith("the pool is not open")


@pytest.mark.parametrize(
    "address", ["localhost:80", "ftp://x:1", "http://", "http://x:1/path", "http://a@x:1", "http://x?y"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError, match="is no address of a server"):
        HttpPool([address], token=TOKEN)


def test_addresses() -> None:
    assert Address.parse("http://[::1]:80/") == Address("::1", 80, False)
    assert Address.parse("https://h") == Address("h", 443, True)
    assert Address("::1", 80, False).netloc == "[::1]:80"
    with pytest.raises(TypeError, match="a list"):
        HttpPool("http://x:1", token=TOKEN)
    for token in ("", "a b", "é", "a\r\nb"):
        with pytest.raises(ValueError, match="token"):
            HttpPool(["http://x:1"], token=token)


PIECES = [b"GET", b"POST", b" ", b"/", b"HTTP/1.1", b"\r\n", b"Host: x", b"\r\n\r\n", b"Content-Length:", b"1", b"\0"]


@given(st.binary(max_size=300) | st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_any_bytes_are_a_head_or_are_refused(data: bytes) -> None:
    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        try:
            head = await read_head(reader)
        except (Refused, EOFError):
            return
        assert head.length >= 0
        assert head.path.startswith("/")

    asyncio.run(read())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.sampled_from(["run", "execute", "call"]), st.data())
def test_any_body_is_work_or_a_value_error(verb: str, data: st.DataObject) -> None:
    good = encode_work(verb, {"code": "1", "function": "f", "command": ["x"], "files": {"a": b"1"}}, Limits())
    body = {**good, "deadline_s": 1}
    for name in data.draw(st.sets(st.sampled_from([*body, "argv", "args", "collect_files", "stdin"]))):
        body[name] = data.draw(JSON)
    for name in data.draw(st.sets(st.sampled_from(sorted(body)))):
        del body[name]
    try:
        work = decode_work(verb, json.dumps(body).encode())
    except ValueError:
        return
    assert work.verb == verb


@given(st.builds(
    RunResult, st.sampled_from(["ok", "timeout", "infra_error"]), exit_code=st.none() | st.integers(0, 255),
    stdout=st.text(), files=st.dictionaries(st.text(), st.binary()), wall_s=st.floats(0, 9), backend=st.just("http"),
))  # fmt: skip
def test_a_result_arrives_as_it_left(result: RunResult) -> None:
    assert decode_run(encode_run(result), "http") == result
