"""The server asked in plain bytes: its bounds, its refusals, keys, deadlines, and its end."""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from agentrl.sandbox import HttpPool, Limits, SandboxError, TierUnavailable
from agentrl.sandbox.cli import main
from tests.processes import children, left_since, still_running
from tests.sandbox.serving import TOKEN, Served, post, serving, until, work


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("--running", "4", "--body-bytes", "100000", "--longest-s", "100") as server:
        yield server


@pytest.fixture(scope="module")
def narrow() -> Iterator[Served]:
    """One run at once, and one that waits."""
    with serving("--running", "1", "--queue", "1") as server:
        yield server


async def test_results_are_those_of_a_pool(served: Served) -> None:
    async with served.pool() as pool:
        assert pool.tier == "zygote"
        code = "import sys\nprint(input(), sys.argv[1], open('in').read())\nopen('out', 'wb').write(bytes(range(256)))"
        result = await pool.run(code, stdin="é", argv=["b"], files={"in": b"c"}, collect_files=["out", "none"])
        assert (result.status, result.stdout, result.exit_code) == ("ok", "é b c\n", 0)
        assert (result.tier, result.backend) == ("zygote", "http")
        assert result.files == {"out": bytes(range(256))}
        assert (await pool.run("raise SystemExit(3)")).exit_code == 3
        assert (await pool.run("while True: pass", limits=Limits(wall_s=0.3))).status == "timeout"
        assert (await pool.run("print('x' * 10**7)")).status == "output_limit"
        assert (await pool.execute(["sh", "-c", "echo $0 $1", "x", "y z"])).stdout == "x y z\n"
        called = await pool.call("def f(a, b=1): return {'s': a + b}", "f", [1.5], {"b": 2})
        assert (called.value, called.ok) == ({"s": 3.5}, True)
        assert (await pool.call("def f(): return 1 / 0", "f")).value is None
        assert (await pool.call("def f(): return 1 / 0", "f")).run.status == "error"


async def test_only_who_knows_the_token_is_served(served: Served) -> None:
    for given in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer x {TOKEN}"):
        status, headers, _ = await served.ask(post(work("1"), authorization=given))
        assert (status, headers["www-authenticate"]) == (401, "bearer"), given
    assert (await served.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))[2] == {"status": "ok"}
    assert (await served.ask(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 401
    with pytest.raises(SandboxError, match="the bearer token is missing or wrong"):
        await HttpPool([served.address], token="wrong").__aenter__()


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (b"nonsense\r\n\r\n", 400, "no request"),
        (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 400, "no request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "twice"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(99)) + b"\r\n", 431, "64 headers"),
        (b"GET / HTTP/1.1\r\nHost: " + b"x" * 20_000 + b"\r\n\r\n", 431, "bytes"),
        (b"GET / HTTP/1.1\r\nHost: " + b"x" * 2_000_000, 431, "bytes"),
        (post(b"", transfer_encoding="chunked"), 501, "Content-Length"),
        (post(b"", expect="100-continue"), 417, "Expect"),
        (post(b"x", content_length="-1"), 400, "Content-Length"),
        (post(b"x", content_length="1_0"), 400, "Content-Length"),
        (post(b"x" * 100_001), 413, "at most 100000"),
        (post(b"", content_length="999999999999"), 413, "at most 100000"),
        (post(work("1"), path="/v1/sessions"), 404, "nothing"),
        (post(work("1"), path="run"), 400, "no request"),
        (b"GET /v1/run HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n", 405, "POST"),
        (post(b"{"), 400, "no JSON"),
        (post(b"[" * 90_000), 400, "no JSON"),
        (post(b"[]"), 400, "no JSON object"),
        (post(b"{}"), 400, "verb"),
        (post(work("1"), path="/v1/call"), 400, "verb"),
        (post(work("1", strange=1)), 400, "strange"),
        (post(work("1", argv=[1])), 400, "no list of texts"),
        (post(work("1").replace(b'"deadline_s": 10', b'"deadline_s": NaN')), 400, "deadline_s"),
        (post(work("1", deadline_s=101)), 422, "allows 100"),
        (post(work("1").replace(b'"wall_s": 10.0', b'"wall_s": 1e4')), 422, "allows 120"),
        (post(work("1").replace(b'"processes": 64', b'"processes": 1.5')), 400, "whole number"),
        (post(work("1").replace(b'"processes": 64', b'"processes": true')), 400, "number"),
        (post(work("1", files={"a": b"x"}).replace(b'"a":', b'"../a":')), 400, "no name of a file"),
        (post(work("1", files={"a": b"x"}).replace(b'"eA=="', b'"e"')), 400, "Base64"),
        (post(work("1"), idempotency_key="x" * 201), 400, "Idempotency-Key"),
        (post(work("import time; time.sleep(5)")) + post(work("1")), 400, "more than one request"),
    ],
)
async def test_what_is_refused(served: Served, request_: bytes, status: int, says: str) -> None:
    got, _, body = await served.ask(request_)
    assert (got, says in body["error"]) == (status, True), body


async def test_a_full_queue_says_when_to_come_back(narrow: Served) -> None:
    await until(lambda: len(narrow.below()) == narrow.idle)
    running = asyncio.create_task(narrow.ask(post(work("import time; time.sleep(5)"))))
    await until(lambda: len(narrow.below()) > narrow.idle)
    found = [*await asyncio.gather(*(narrow.ask(post(work("1"))) for _ in range(3))), await running]
    assert sorted(status for status, _, _ in found) == [200, 200, 429, 429]
    assert all(int(headers["retry-after"]) >= 1 for status, headers, _ in found if status == 429)


@pytest.mark.slow
async def test_a_client_comes_back_when_it_was_told_to(narrow: Served) -> None:
    async with narrow.pool() as pool:
        results = await asyncio.gather(*(pool.run("import time; time.sleep(0.1)") for _ in range(6)))
    assert [result.status for result in results] == ["ok"] * 6


async def test_the_deadline_is_the_servers_to_keep(narrow: Served) -> None:
    await until(lambda: len(narrow.below()) == narrow.idle)
    running = asyncio.create_task(narrow.ask(post(work("import time; time.sleep(60)", deadline_s=3))))
    await until(lambda: len(narrow.below()) > narrow.idle)
    waiting = await narrow.ask(post(work("print(1)", deadline_s=0.2)))
    assert [(await running)[0], waiting[0]] == [504, 504]
    assert (await narrow.ask(post(work("print(1)"))))[2]["run"]["stdout"] == "1\n"


async def test_one_key_is_done_once(served: Served) -> None:
    request = post(work("import os, time; time.sleep(0.3); print(os.urandom(9).hex())"), idempotency_key="k1")
    at_once = await asyncio.gather(*(served.ask(request) for _ in range(3)))
    later = await served.ask(request)
    assert {body["run"]["stdout"] for _, _, body in (*at_once, later)} == {later[2]["run"]["stdout"]}
    other_deadline = await served.ask(
        post(work("import os, time; time.sleep(0.3); print(os.urandom(9).hex())", deadline_s=5), idempotency_key="k1")
    )
    assert other_deadline[2] == later[2]
    assert (await served.ask(post(work("2"), idempotency_key="k1")))[0] == 422
    no_key = post(work("import os; print(os.urandom(9).hex())"))
    assert (await served.ask(no_key))[2] != (await served.ask(no_key))[2]


async def test_who_leaves_takes_the_run_along_but_not_from_others(served: Served) -> None:
    await until(lambda: len(served.below()) == served.idle)
    async with served.pool() as pool:
        leaving = asyncio.create_task(pool.run("import time; time.sleep(60)", limits=Limits(wall_s=60)))
        await until(lambda: len(served.below()) > served.idle)
        leaving.cancel()
        await until(lambda: len(served.below()) == served.idle)
    request = post(work("import time; time.sleep(1); print(7)"), idempotency_key="k2")
    leaving = asyncio.create_task(served.ask(request))
    staying = asyncio.create_task(served.ask(request))
    await asyncio.sleep(0.3)
    leaving.cancel()
    assert (await staying)[2]["run"]["stdout"] == "7\n"


async def test_slow_and_silent_connections_hold_up_nobody(served: Served) -> None:
    silent = [await asyncio.open_connection(served.host, served.port) for _ in range(100)]
    for _, writer in silent[::2]:
        writer.write(b"POST /v1/run HTTP/1.1\r\nHo")
    async with served.pool() as pool:
        assert (await pool.run("print(1)")).ok
    for _, writer in silent:
        writer.close()


async def test_a_worker_that_is_killed_is_a_failure_and_is_not_remembered(served: Served) -> None:
    request = post(work("import time; time.sleep(3); print(1)"), idempotency_key="k3")
    await until(lambda: len(served.below()) == served.idle)
    asked = asyncio.create_task(served.ask(request))
    await until(lambda: len(served.below()) > served.idle)
    while not asked.done():  # what has not begun is begun again on the next worker
        for worker in psutil.Process(served.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        await asyncio.sleep(0.05)
    status, _, body = await asked
    assert (status, "the sandbox failed" in body["error"]) == (500, True)
    async with served.pool() as pool:  # it tries again, as long as a new worker is not there
        assert (await pool.run("print(1)")).ok
    assert (await served.ask(request))[2]["run"]["status"] == "ok"


async def test_what_runs_may_end_when_the_server_is_stopped() -> None:
    before = children()
    with serving("--running", "1") as server:
        running = asyncio.create_task(server.ask(post(work("import time; time.sleep(1); print(1)"))))
        waiting, _ = await asyncio.open_connection(server.host, server.port)
        await until(lambda: len(server.below()) > server.idle)
        server.kill(signal.SIGTERM)
        assert (await running)[2]["run"]["stdout"] == "1\n"
        assert await asyncio.to_thread(server.process.wait, 60) == 0
        assert await waiting.read() == b""
    assert left_since(before) == []


@pytest.mark.slow
async def test_what_does_not_end_is_ended_when_the_server_is_stopped() -> None:
    with serving("--drain-s", "0.3") as server:
        running = asyncio.create_task(server.ask(post(work("import time; time.sleep(60)"))))
        await until(lambda: len(server.below()) > server.idle)
        below = server.below()
        server.kill(signal.SIGTERM)
        status, headers, _ = await running
        assert (status, "retry-after" in headers) == (503, True)
        assert await asyncio.to_thread(server.process.wait, 60) == 0
        assert still_running(below) == []


async def test_a_killed_server_leaves_nothing() -> None:
    with serving() as server:
        asked = [asyncio.create_task(server.ask(post(work("import time; time.sleep(9)")))) for _ in range(4)]
        await until(lambda: len(server.below()) >= server.idle + 4)
        below = server.below()
        server.kill()
        assert still_running(below) == []
        await asyncio.gather(*asked, return_exceptions=True)


async def test_a_tier_that_is_too_weak_is_refused() -> None:
    with serving("--tier", "landlock", "--minimum", "landlock") as server:
        with pytest.raises(TierUnavailable, match="has tier 'landlock', and at least 'zygote' is wanted"):
            await server.pool(minimum="zygote").__aenter__()
        async with server.pool() as pool:
            assert (await pool.run("print(1)")).tier == "landlock"
            pool._minimum = "zygote"  # as if the server had been started anew, and weaker
            assert (await pool.run("print(1)")).status == "infra_error"


async def test_over_tls(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate, and is not here")
    _make_certificate(tmp_path)
    files = ("--certificate", str(tmp_path / "cert"), "--key", str(tmp_path / "key"))
    with serving(*files, scheme="https") as server:
        trusted = ssl.create_default_context(cafile=tmp_path / "cert")
        async with server.pool(tls=trusted) as pool:
            assert (await pool.run("print(input())", stdin="x" * 500_000)).stdout == "x" * 500_000 + "\n"
        with pytest.raises(SandboxError, match="certificate verify failed"):
            await server.pool().__aenter__()
        with pytest.raises(SandboxError):
            await HttpPool([f"http://{server.host}:{server.port}"], token=TOKEN).__aenter__()


def test_the_command_refuses_what_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SANDBOX_RUNNER_TOKEN", raising=False)
    token = tmp_path / "token"
    token.write_text("short")
    for options, says in (
        (["--listen", "8023"], "write HOST:PORT"),
        ([], "there is no token"),
        (["--token-file", str(tmp_path / "none")], "No such file"),
        (["--token-file", str(token), "--listen", "127.0.0.1:0", "--workers", "1"], "less than 16 characters"),
    ):
        assert main(["serve", *options]) == 125
        assert says in capsys.readouterr().err


def _make_certificate(folder: Path) -> None:
    """For 127.0.0.1, signed by itself."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key", "-out", "cert"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
