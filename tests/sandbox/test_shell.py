"""Shells: what stays from command to command, how commands end, what is kept, and nothing left behind."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrl.sandbox import SandboxError, SessionLost, Shell, SyncSandboxPool
from agentrl.sandbox.shell_driver import Kept
from tests.processes import children, left_since
from tests.sandbox.attack import LIMITS
from tests.sandbox.conftest import opened
from tests.sandbox.serving import serving


def test_folder_variables_functions_and_files_stay(whole: SyncSandboxPool) -> None:
    with whole.shell(files={"d/in.txt": "7\n"}) as shell:
        assert shell.run("cd d; X=5; export Y=6; f() { echo $X$Y; }").ok
        assert shell.run("pwd; f; sh -c 'echo $X-$Y'; cat in.txt").stdout == "/work/d\n56\n-6\n7\n"
        failed = shell.run("echo out; echo err >&2; false")
        assert (failed.status, failed.exit_code, failed.stdout) == ("error", 1, "out\nerr\n")
        assert shell.run("echo $?").stdout == "0\n"  # as after any line that ended well: the shell's own
        assert shell.run("cat; read line; echo got $line").stdout == "got\n"
        broken = shell.run("if then")
        assert broken.exit_code == 2
        assert "syntax error" in broken.stdout
        assert shell.run("printf '\\377\\0x'").stdout == "\ufffd\0x"
        assert shell.run("python3 -c 'print(6 * 7)'").stdout == "42\n"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    code=st.integers(0, 255),
)
def test_any_text_and_exit_code_come_through(shell: object, text: str, code: int) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    result = shell.run(f"printf %s {quoted}\n(exit {code})")  # type: ignore[attr-defined]
    assert (result.stdout, result.exit_code, result.ok) == (text, code, code == 0)


@pytest.fixture(scope="module")
def shell(whole: SyncSandboxPool) -> object:
    with whole.shell() as shell:
        yield shell


def test_a_late_command_costs_the_shell_and_not_the_files(whole: SyncSandboxPool) -> None:
    with whole.shell() as shell:
        shell.run("exit")
        idle = children()
        shell.run("cd /tmp; X=5; echo 1 > /work/f")
        late = shell.run("echo begun; (setsid sleep 1000 &); sleep 1000", wall_s=3)
        assert (late.status, late.exit_code, late.stdout, late.shell_lost, late.lost) == (
            "timeout", None, "begun\n", True, False,
        )  # fmt: skip
        assert left_since(idle) == []  # of what it had started, and itself
        assert shell.run("pwd; cat f; echo -$X-").stdout == "/work\n1\n--\n"
        gone = shell.run("echo bye; exit 7")
        assert (gone.status, gone.exit_code, gone.stdout, gone.shell_lost, gone.lost) == (
            "error",
            7,
            "bye\n",
            True,
            False,
        )
        assert shell.run("exit 0").ok


def test_long_output_keeps_its_head_and_its_tail(whole: SyncSandboxPool) -> None:
    with whole.shell() as shell:
        result = shell.run("echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo last", kept_bytes=300)
        head, note, tail = result.stdout.partition(f"\n[... {result.cut} bytes left out ...]\n")
        assert note
        assert (head[:7], tail[-5:], len(head), len(tail)) == ("first\nx", "last\n", 200, 100)
        assert result.cut == 6 + 3_000_000 + 5 - 300
        with pytest.raises(ValueError, match="at most half"):
            shell.run("true", kept_bytes=1 << 30)


@given(st.lists(st.binary(max_size=30), max_size=12), st.integers(3, 40))
def test_what_is_kept_is_the_head_and_the_tail_of_all(parts: list[bytes], limit: int) -> None:
    kept, whole = Kept(limit), b"".join(parts)
    for part in parts:
        kept.add(part)
    tail = limit // 3
    assert kept.head == whole[: limit - tail]
    assert kept.cut == max(0, len(whole) - limit)
    assert kept.tail == whole[limit - tail :][-tail:]


def test_a_lost_session_is_a_status(whole: SyncSandboxPool) -> None:
    limits = dataclasses.replace(LIMITS, memory_bytes=100 << 20, wall_s=30)
    before = children()
    with whole.shell(limits=limits) as shell:
        shell.run("echo 1 > f")
        result = shell.run("python3 -c 'x = b\"x\" * (200 << 20); import time; time.sleep(30)'")
        assert (result.status, result.lost) == ("memory", True)
        with pytest.raises(SessionLost, match="memory limit"):
            shell.run("true")
    assert left_since(before) == []


def test_python_and_shell_share_a_session(zygote: SyncSandboxPool) -> None:
    async def together() -> None:
        async with zygote.pool.session() as session:
            shell = Shell(session)
            await session.run("open('f', 'w').write('5')")
            assert (await shell.run("cat f; echo 6 > g; cd /tmp")).stdout == "5"
            assert (await session.run("open('g').read()")).stdout == "'6\\n'\n"
            async with await session.fork() as branch:  # which has the files, and not the shell
                other = Shell(branch)
                assert (await other.run("pwd; cat f; echo 7 > f")).stdout == "/work\n5"
                assert (await shell.run("pwd; cat /work/f")).stdout == "/tmp\n5"
            assert (await shell.run("echo $((6 * 7))")).stdout == "42\n"
            await session.run("import sys; sys.modules.clear()")
            assert (await shell.run("true")).status == "error"

    before = children()
    zygote.wait_for(together())
    assert left_since(before) == []


def test_a_tier_without_programs_has_no_shell() -> None:
    before = children()
    for pool in opened("landlock"):
        idle = children()
        with pytest.raises(SandboxError, match="which tier 'landlock' does not allow"), pool.shell():
            pass
        assert left_since(idle) == []
    assert left_since(before) == []


async def test_shells_may_be_on_a_server() -> None:
    with serving() as server:
        async with server.pool() as pool, pool.shell(files={"f": "5"}) as shell:
            assert (await shell.run("cat f; cd /tmp")).stdout == "5"
            result = await shell.run("pwd; exit 3")
            assert (result.stdout, result.exit_code, result.shell_lost) == ("/tmp\n", 3, True)
            with pytest.raises(SandboxError, match="on a server cannot be forked"):
                await shell.session.fork()
            server.kill()
            lost = await shell.run("true")
            assert (lost.status, lost.lost) == ("infra_error", True)
