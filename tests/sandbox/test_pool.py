"""What a run gives back, limits that hold for a whole run, cancelling, and many runs at once."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from agentrl.sandbox import Limits, SandboxError, SandboxPool, SyncSandboxPool, run_sync
from tests.processes import children, left_since
from tests.sandbox.attack import LIMITS
from tests.sandbox.conftest import WHOLE, many, opened
from tests.sandbox.serving import until


def test_a_program_gets_its_input_and_gives_its_output(pool: SyncSandboxPool) -> None:
    code = "import sys\nprint(open('in/a.txt').read(), input(), sys.argv[1:])\nprint('e', file=sys.stderr)\nsys.exit(3)"
    result = pool.run(code, files={"in/a.txt": "file"}, stdin="line\n", argv=["-x"])
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("error", 3, "file line ['-x']\n", "e\n")
    assert result.tier == pool.tier
    assert not result.truncated
    assert 0 < result.cpu_s < 2
    assert result.wall_s > 0
    assert result.max_rss > 1 << 20


def test_all_walls_stand(pool: SyncSandboxPool) -> None:
    """Some attacks meet several walls, and would not show that one of them is missing."""
    result = pool.run("print(open('/proc/self/status').read())")
    status = dict(line.split(":", 1) for line in result.stdout.splitlines() if ":" in line)
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
    )
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    limits = pool.run(
        "import resource as r\nprint(*(r.getrlimit(k)[1] for k in (r.RLIMIT_AS, r.RLIMIT_NPROC, r.RLIMIT_CORE)))"
    )
    assert limits.stdout.split() == [str(LIMITS.address_bytes), str(LIMITS.processes), "1"]
    if pool.tier in WHOLE:
        assert (status["NSpid"].split(), status["Uid"].split()[0]) == (["1"], "1000")
        mounts = pool.run("print(open('/proc/self/mountinfo').read())").stdout.splitlines()
        flags = {line.split()[4]: line.split()[5].split(",")[0] for line in mounts if line}  # the uppermost is the last
        devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
        assert {place for place, flag in flags.items() if flag == "rw"} <= {
            "/box",
            "/work",
            "/tmp",
            "/dev/shm",
        } | devices


def test_files_come_back_and_only_those_asked_for(pool: SyncSandboxPool) -> None:
    code = "import os\nos.mkdir('d')\nopen('d/x', 'wb').write(bytes([0, 255]))\nopen('y', 'w').write('y')"
    assert pool.run(code, collect_files=["d/x", "missing"]).files == {"d/x": b"\x00\xff"}


def test_files_over_the_cap_are_left_out(pool: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, result_bytes=100)
    result = pool.run(
        "open('a', 'w').write('x' * 101)\nopen('b', 'w').write('x' * 99)", collect_files=["a", "b"], limits=limits
    )
    assert list(result.files) == ["b"]
    assert "left out" in result.error


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a//b", "./a", "a\0b"])
def test_a_file_name_that_leads_elsewhere_is_refused(pool: SyncSandboxPool, name: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        pool.run("", files={name: "x"})
    with pytest.raises(ValueError, match="relative path"):
        pool.run("", collect_files=[name])


CLASH = {"a": "x", "a/b": "y"}
TOO_LARGE = {"x": b"0" * (LIMITS.disk_bytes + 1)}
TOO_MUCH = dict.fromkeys(("x", "y"), b"0" * (LIMITS.disk_bytes // 2 + 1))
TOO_LONG = {"n" * 300: "x"}


@pytest.mark.parametrize("files", [CLASH, TOO_LARGE, TOO_MUCH, TOO_LONG], ids=["clash", "size", "sum", "name"])
def test_files_that_cannot_be_written_are_no_failure_of_the_sandbox(
    pool: SyncSandboxPool, files: dict[str, str]
) -> None:
    result = pool.run("print(1)", files=files)
    assert (result.status, result.stdout) == ("error", "")
    assert "the files could not be written" in result.stderr


def test_text_that_is_no_unicode_does_no_harm(pool: SyncSandboxPool) -> None:
    assert pool.run("x = '\ud800'").status == "error"
    assert pool.run("import sys\nprint(len(sys.stdin.buffer.read()))", stdin="\ud800").stdout == "3\n"
    with pytest.raises(ValueError, match="surrogates"):
        pool.run("", collect_files=["\ud800"])


def test_a_module_beside_the_program_can_be_imported(pool: SyncSandboxPool) -> None:
    assert pool.run("import helper\nprint(helper.x)", files={"helper.py": "x = 5"}).stdout == "5\n"


def test_output_is_kept_up_to_the_cap(pool: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, output_bytes=1000)
    result = pool.run("print('x' * 5000)", limits=limits)
    assert (result.status, len(result.stdout), result.truncated) == ("output_limit", 1000, True)
    whole = pool.run("print('x' * 999)", limits=limits)
    assert (whole.status, len(whole.stdout), whole.truncated) == ("ok", 1000, False)


def test_an_end_that_crosses_with_the_order_to_end_is_known(pool: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, output_bytes=1000)

    async def together() -> set[str]:
        runs = (pool.pool.run("print('x' * 5000)", limits=limits) for _ in range(many(pool, 150)))
        return {result.status for result in await asyncio.gather(*runs)}

    assert pool.wait_for(together()) == {"output_limit"}


def test_a_program_of_the_system_runs_in_the_same_walls(whole: SyncSandboxPool) -> None:
    result = whole.execute(
        ["bash", "-c", "read x; echo $x; echo out > f; ls /tmp /home 2>&1; exit 3"], stdin="in\n", collect_files=["f"]
    )
    assert (result.status, result.exit_code, result.files) == ("error", 3, {"f": b"out\n"})
    assert result.stdout.splitlines()[0] == "in"
    assert "cannot access '/home'" in result.stdout
    assert whole.execute(["no-such-program"]).exit_code == 127
    assert whole.execute(["sleep", "60"], limits=dataclasses.replace(LIMITS, wall_s=0.3)).status == "timeout"
    with pytest.raises(ValueError, match="empty"):
        whole.execute([])
    assert whole.execute(["echo", "a\0b"]).exit_code == 126


def test_a_program_of_the_system_is_refused_where_leftovers_could_not_be_killed() -> None:
    for pool in opened("landlock"):
        result = pool.execute(["echo", "x"])
        assert (result.exit_code, result.stdout) == (126, "")
        assert "not permitted" in result.stderr


def test_large_input_and_output_do_not_wait_for_each_other(pool: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, output_bytes=8 << 20)
    text = "x" * (4 << 20)
    result = pool.run("import sys\nsys.stdout.write(sys.stdin.read())", stdin=text, limits=limits)
    assert result.ok
    assert result.stdout == text


def test_memory_is_limited_as_a_sum_over_processes(whole: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, memory_bytes=150 << 20, wall_s=60, cpu_s=10)
    child = "    if os.fork() == 0: x = b'x' * (60 << 20); time.sleep(50)\n"
    code = f"import os, time\nfor _ in range(4):\n{child}time.sleep(50)"
    result = whole.run(code, limits=limits)
    assert (result.status, result.error) == ("memory", "memory limit of the whole run")


def test_memory_is_limited_where_the_first_thread_has_left(pool: SyncSandboxPool) -> None:
    hold = "def hold():\n    time.sleep(0.2)\n    x = b'x' * (300 << 20)\n    time.sleep(50)\n    os._exit(0)"
    leave = "threading.Thread(target=hold).start()\nctypes.CDLL(None).pthread_exit(None)"
    limits = dataclasses.replace(LIMITS, memory_bytes=100 << 20, wall_s=60, cpu_s=10)
    result = pool.run(f"import ctypes, os, threading, time\n{hold}\n{leave}", limits=limits)
    assert (result.status, result.error) == ("memory", "memory limit of the whole run")


def test_processor_time_is_limited_as_a_sum_over_processes(whole: SyncSandboxPool) -> None:
    code = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    result = whole.run(code, limits=dataclasses.replace(LIMITS, wall_s=100, cpu_s=1))
    assert (result.status, result.error) == ("timeout", "processor time limit")


def test_runs_do_not_count_each_others_processes(whole: SyncSandboxPool) -> None:
    """Twelve processes each where twenty are allowed to each: together they are more."""
    child = "    if os.fork() == 0: time.sleep(0.5); os._exit(0)\n"
    code = f"import os, time\nfor _ in range(12):\n{child}print('all')\ntime.sleep(0.5)"
    limits = dataclasses.replace(LIMITS, processes=20)

    async def together() -> list[str]:
        return [r.stdout for r in await asyncio.gather(*(whole.pool.run(code, limits=limits) for _ in range(4)))]

    assert whole.wait_for(together()) == ["all\n"] * 4


def test_runs_at_once_do_not_see_each_other(whole: SyncSandboxPool) -> None:
    """On `zygote` they share a network namespace, where abstract names of sockets live."""
    head = "import socket, time\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(1)\n"
    serve = head + "s.bind('\\0meet')\ns.listen()\ns.accept()\nprint('met')"
    meet = head + "time.sleep(0.3)\ns.connect('\\0meet')\nprint('met')"

    async def together() -> list[str]:
        return [r.stdout for r in await asyncio.gather(whole.pool.run(serve), whole.pool.run(meet))]

    assert whole.wait_for(together()) == ["", ""]


def test_many_at_once_get_their_own_results(pool: SyncSandboxPool) -> None:
    count = many(pool, 100)

    async def together() -> list[str]:
        return [r.stdout for r in await asyncio.gather(*(pool.pool.run(f"print({n})") for n in range(count)))]

    assert pool.wait_for(together()) == [f"{n}\n" for n in range(count)]


def test_cancelling_ends_the_run(pool: SyncSandboxPool) -> None:
    before = children()

    async def cancelled() -> None:
        limits = dataclasses.replace(LIMITS, wall_s=50)
        task = asyncio.create_task(pool.pool.run("import time\ntime.sleep(60)", limits=limits))
        await until(lambda: children() - before)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    pool.wait_for(cancelled())
    assert left_since(before) == []
    assert pool.run("print(1)").ok


def test_randomness_differs_from_run_to_run(pool: SyncSandboxPool) -> None:
    code = "import random, os, uuid\nprint(random.random(), os.urandom(8), uuid.uuid4())"
    assert len({pool.run(code).stdout for _ in range(5)}) == 5


def test_preloaded_modules_are_there_and_have_their_own_randomness() -> None:
    pytest.importorskip("numpy")
    with SyncSandboxPool(workers=1, preload=["numpy"], limits=LIMITS) as pool:
        code = "import sys\nassert 'numpy' in sys.modules\nimport numpy\nprint(numpy.random.rand())"
        results = [pool.run(code) for _ in range(3)]
        assert all(each.ok for each in results), results
        assert len({each.stdout for each in results}) == 3


def test_a_module_that_cannot_be_preloaded_is_named() -> None:
    with pytest.raises(SandboxError, match="no_such_module"), SyncSandboxPool(preload=["no_such_module"]):
        pass


def test_one_program_without_a_pool() -> None:
    assert run_sync("print(input())", stdin="x").stdout == "x\n"


def test_a_pool_that_is_not_open_says_so() -> None:
    result = asyncio.run(SandboxPool().run("print(1)"))
    assert result.status == "infra_error"
    assert "async with" in result.error


def test_hanging_runs_hold_up_others_by_their_places_only(pool: SyncSandboxPool) -> None:
    limits, before = dataclasses.replace(LIMITS, wall_s=50), children()

    async def together() -> list[bool]:
        hanging = [asyncio.create_task(pool.pool.run("import time\ntime.sleep(60)", limits=limits)) for _ in range(3)]
        await until(lambda: len(children() - before) >= 3)
        for _ in range(5):
            assert (await pool.pool.run("print(1)")).ok
        ended = [each.done() for each in hanging]
        for each in hanging:
            each.cancel()
        await asyncio.wait(hanging)
        return ended

    assert pool.wait_for(together()) == [False] * 3
    assert left_since(before) == []


@pytest.mark.parametrize("wrong", [{"wall_s": 0}, {"memory_bytes": -1}, {"cpu_s": float("nan")}])
def test_limits_are_above_zero(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Limits(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"output_bytes": 0.5}, {"disk_bytes": 1e8}])
def test_limits_other_than_times_are_whole(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="whole number"):
        Limits(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("large", [{"cpu_s": float("inf")}, {"wall_s": float("inf")}, {"address_bytes": 1 << 64}])
def test_limits_may_be_larger_than_the_kernel_counts(pool: SyncSandboxPool, large: dict[str, float]) -> None:
    result = pool.run("print(1)", limits=dataclasses.replace(LIMITS, **large))
    assert result.ok, result


def test_sockets_hold_little_of_the_kernels_memory(pool: SyncSandboxPool) -> None:
    code = """
import socket
a, b = socket.socketpair()
try:
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
except PermissionError:
    print("refused")
a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
"""
    assert pool.run(code).stdout == "refused\n"
