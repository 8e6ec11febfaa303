"""One way in to sandboxes here and elsewhere: what decides where they are, and that graders work with either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrl.sandbox import (
    HttpPool,
    Limits,
    RunResult,
    SandboxError,
    SandboxPool,
    SyncSandboxPool,
    TierUnavailable,
    open_pool,
    run_sync,
)
from agentrl.sandbox.cli import main
from agentrl.sandbox.dialogue import Silent
from agentrl.sandbox.grading import CodeTask, Equality, FunctionCase, FunctionTask, Grader, TextCase, TextTask
from agentrl.sandbox.protocol import Pool
from tests.sandbox.serving import TOKEN, Served, serving

ADDRESSES, SECRET, SECRET_FILE = (f"SANDBOX_RUNNER_{name}" for name in ("ADDRESSES", "TOKEN", "TOKEN_FILE"))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ADDRESSES, SECRET, SECRET_FILE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("--preload", "colorsys") as server:
        yield server


def test_without_addresses_it_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_pool(), SandboxPool)
    monkeypatch.setenv(ADDRESSES, "http://a:1")
    assert isinstance(open_pool(addresses=()), SandboxPool)
    monkeypatch.setenv(ADDRESSES, " , ")
    assert isinstance(open_pool(), SandboxPool)


def test_the_environment_names_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ADDRESSES, "http://a:1, https://b")
    with pytest.raises(ValueError, match=f"no token.*{SECRET}"):
        open_pool()
    monkeypatch.setenv(SECRET, TOKEN)
    pool = open_pool()
    assert isinstance(pool, HttpPool)
    assert [str(server) for server in pool.servers] == ["a:1", "b:443"]
    assert [str(server) for server in open_pool(addresses=["http://c:2"]).servers] == ["c:2"]  # type: ignore[attr-defined]
    monkeypatch.delenv(SECRET)
    monkeypatch.setenv(SECRET_FILE, str(tmp_path / "token"))
    with pytest.raises(OSError, match="token"):
        open_pool()
    (tmp_path / "token").write_text(TOKEN + "\n")
    open_pool()
    monkeypatch.setenv(SECRET, "not this one")
    assert open_pool(token_file=tmp_path / "token")._asker._token == TOKEN  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tier": "none", "i_know_this_is_unsafe": True}, "this machine alone"),
        ({"warm": "1"}, "warm"),
        ({"minimum": "magic"}, "no tier"),
        ({"tier": "magic"}, "no tier"),
        ({"tier": "bwrap", "minimum": "zygote"}, "weaker"),
        ({"token": "two words"}, "header"),
    ],
)
def test_what_servers_cannot_be_asked_for(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_pool(**{"addresses": ["http://a:1"], "token": TOKEN, **settings})  # type: ignore[arg-type]


async def test_a_weaker_server_fails_loudly(served: Served) -> None:
    with serving("--tier", "landlock", "--minimum", "landlock") as weak:
        for settings in ({"tier": "zygote"}, {"minimum": "zygote"}, {"minimum": "bwrap"}):
            for addresses in ([weak.address], [served.address, weak.address]):
                with pytest.raises(TierUnavailable, match="'landlock', and at least"):
                    await open_pool(addresses=addresses, token=TOKEN, **settings).__aenter__()
        async with open_pool(addresses=[weak.address, served.address], token=TOKEN) as pool:
            assert pool.tier == "landlock"
    for settings in ({"tier": "zygote"}, {"minimum": "bwrap"}):
        async with open_pool(addresses=[served.address], token=TOKEN, **settings) as pool:
            assert pool.tier == "zygote"


def test_the_plain_face_is_the_same_there(served: Served) -> None:
    with SyncSandboxPool(addresses=[served.address], token=TOKEN, preload=["colorsys"]) as pool:
        assert (pool.tier, pool.features) == ("zygote", {})
        assert pool.run("import sys\nprint('colorsys' in sys.modules)").stdout == "True\n"
        assert pool.execute(["echo", "x"]).stdout == "x\n"
        assert pool.call("def f(x): return x + 1", "f", [1]).value == 2
        with pool.session() as session:
            session.run("x = 5")
            assert session.run("x").stdout == "5\n"


def test_modules_that_servers_have_not_preloaded_are_named(served: Served) -> None:
    with (
        pytest.raises(SandboxError, match="not preloaded numpy"),
        SyncSandboxPool(addresses=[served.address], token=TOKEN, preload=["colorsys", "numpy"]),
    ):
        pass


def test_one_program_and_the_command_go_where_they_are_told(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_sync("print(input())", stdin="x", addresses=[served.address], token=TOKEN, minimum="zygote")
    assert (result.stdout, result.backend) == ("x\n", "http")
    monkeypatch.setenv(ADDRESSES, served.address)
    monkeypatch.setenv(SECRET, TOKEN)
    assert run_sync("print(1)").backend == "http"
    (tmp_path / "p.py").write_text("print(1)")
    assert main(["run", "--json", str(tmp_path / "p.py")]) == 0
    assert '"backend": "http"' in capfd.readouterr().out


ADD = FunctionTask("add", (FunctionCase((1, 2), 3), FunctionCase((2.5, 1), 3.5)), equality=Equality())
ECHO = TextTask((TextCase("4\n", "16\n"),))
ASSERTS = CodeTask(tests="assert add(1, 2) == 3\nassert add([1], [2]) == [1, 2]", functions=("add",))
RIGHT = "def add(a, b): return a + b"


@pytest.mark.parametrize("where", ["here", "there"])
async def test_graders_take_either(where: str, served: Served) -> None:
    async with open_pool(addresses=[served.address] if where == "there" else (), token=TOKEN) as pool:
        grader = Grader(pool)
        assert (await grader.grade(RIGHT, ADD)).passed
        assert not (await grader.grade("def add(a, b): return 3", ADD)).passed
        assert (await grader.grade("print(int(input()) ** 2)", ECHO)).passed
        assert (await grader.grade(RIGHT, ASSERTS)).passed
        wrong = await grader.grade("def add(a, b): return 3", ASSERTS)
        assert [case.status for case in wrong.cases].count("wrong") == 1, wrong
        left = await grader.grade("import os\ndef add(a, b): os._exit(0)", ASSERTS)
        assert not left.passed


ECHOING = """
import json, os
def exactly(n):
    data = b""
    while len(data) < n:
        data += os.read(3, n - len(data))
    return data
while True:
    said = exactly(int.from_bytes(exactly(4), "big"))
    if json.loads(said).get("leave"):
        raise SystemExit(3)
    os.write(3, len(said).to_bytes(4, "big") + said)
"""


@pytest.mark.parametrize("where", ["here", "there"])
async def test_a_dialogue(where: str, served: Served) -> None:
    def pool_there() -> Pool:
        return open_pool(addresses=[served.address] if where == "there" else (), token=TOKEN)

    async with pool_there() as pool, pool.dialogue(ECHOING) as talk:
        for message in ({"a": "é" * 100_000}, {}, {"b": [1, None]}):
            await talk.send(message)
            assert await talk.receive(20) == message
        with pytest.raises(Silent):
            await talk.receive(0.1)
    async with pool_there() as pool, pool.dialogue(ECHOING) as talk:
        await talk.send({"leave": True})
        assert await talk.receive(20) is None
        assert isinstance(run := await talk.end(), RunResult)
        assert (run.status, run.exit_code) == ("error", 3)
    async with pool_there() as pool, pool.dialogue("import os, time\nos.write(3, b'x' * 9)\ntime.sleep(60)") as talk:
        assert await talk.receive(20) is None
        assert await talk.end() is None


async def test_a_server_that_is_lost_in_a_dialogue_is_said_to_have_failed() -> None:
    with serving() as server:
        async with server.pool() as pool, pool.dialogue(ECHOING) as talk:
            await talk.send({"a": 1})
            assert await talk.receive(20) == {"a": 1}
            server.kill()
            assert await talk.receive(20) is None
            run = await talk.end()
    assert run is not None
    assert run.status == "infra_error"


async def test_a_dialogue_has_the_bounds_of_a_session() -> None:
    with serving("--sessions", "1", "--max-cpu-s", "9") as server:
        async with server.pool(patience_s=0.5) as pool:
            with pytest.raises(SandboxError, match="cpu_s is 10"):
                await pool.dialogue(ECHOING, limits=Limits(cpu_s=10)).__aenter__()
            async with pool.dialogue(ECHOING, limits=Limits(cpu_s=5)):
                with pytest.raises(SandboxError, match="sessions are open already"):
                    await pool.dialogue(ECHOING, limits=Limits(cpu_s=5)).__aenter__()


async def test_a_dialogue_is_had_when_its_walls_stand() -> None:
    """How long a busy machine takes for them is no part of what the program may take."""
    async with SandboxPool(workers=1) as pool, pool.dialogue(ECHOING) as talk:
        assert talk._live.begun
