"""Other machines than this one: without user namespaces, without Landlock, without mounts, without root.

What a machine lacks is taken away by a filter of system calls, in a process that then opens a pool.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest

from agentrl.sandbox import SandboxPool, SyncSandboxPool, TierUnavailable
from agentrl.sandbox.cli import main
from agentrl.sandbox.containers import CONTAINER_TIERS
from agentrl.sandbox.jail import landlock
from agentrl.sandbox.starts import PROGRAMS
from tests.sandbox.attack import REPOSITORY
from tests.sandbox.conftest import refusal

_REFUSE = """
import struct
from agentrl.sandbox.jail import syscalls
def refuse(*numbers):
    word = lambda *w: struct.pack("=HBBI", *w)
    tests = b"".join(word(0x15, 0, 1, n) + word(6, 0, 0, 0x50001) for n in numbers)
    syscalls.no_new_privileges()
    syscalls.Filter(word(0x20, 0, 0, 0) + tests + word(6, 0, 0, 0x7FFF0000)).install()
"""
_OPEN = """
from agentrl.sandbox import SyncSandboxPool, TierUnavailable
try:
    with SyncSandboxPool(workers=1, **settings) as pool:
        print(pool.tier, pool.run("print(6 * 7)").stdout.strip(), pool.run("open('/tmp/sbx', 'w')").tier)
except TierUnavailable as error:
    print("refused:", error)
"""
UNSHARE, LANDLOCK, MOUNT, SECCOMP = 272, 444, 165, 317
_FORK = """
from agentrl.sandbox import SyncSandboxPool, SandboxError
with SyncSandboxPool(tier="zygote", workers=1) as pool, pool.session() as session:
    session.run("x = 42")
    try:
        session.fork()
    except SandboxError as error:
        print(session.run("x").stdout, error)
"""
needs_both = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")


def said(code: str, python: list[str] | None = None) -> str:
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [*(python or [sys.executable]), "-c", code], env=environment, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@needs_both
def test_without_user_namespaces_the_next_tier_is_taken_and_named() -> None:
    assert said(f"{_REFUSE}\nrefuse({UNSHARE}, {MOUNT})\nsettings = {{}}\n{_OPEN}") == "landlock 42 landlock"


def test_where_python_gets_no_namespaces_and_bubblewrap_does_it_is_taken() -> None:
    if why := refusal("bwrap"):
        pytest.skip(why)
    assert said(f"{_REFUSE}\nrefuse({UNSHARE})\nsettings = {{}}\n{_OPEN}") == "bwrap 42 bwrap"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap(1)")
def test_what_bubblewrap_says_when_it_is_refused_is_passed_on() -> None:
    text = said(f"{_REFUSE}\nrefuse({MOUNT})\nsettings = {{'tier': 'bwrap'}}\n{_OPEN}")
    assert text.startswith("refused: tier 'bwrap' cannot be had here: ")
    assert "bwrap: " in text


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("bwrap") is None, reason="needs root to hide bwrap(1)")
def test_without_bubblewrap_the_probe_says_how_to_get_it() -> None:
    places = [f"{folder}/bwrap" for folder in PROGRAMS.split(":") if os.path.exists(f"{folder}/bwrap")]
    hide = " && ".join(f"mount --bind /dev/null {os.path.realpath(place)}" for place in places)
    probing = "import asyncio\nfrom agentrl.sandbox.probe import explain, probe\nprint(explain(asyncio.run(probe())))"
    text = said(probing, in_a_machine_with(hide))
    assert "install the package bubblewrap" in text
    assert "apt install bubblewrap" in text


@needs_both
def test_without_user_namespaces_a_demanded_tier_is_refused() -> None:
    for settings in ({"minimum": "zygote"}, {"tier": "zygote"}):
        text = said(f"{_REFUSE}\nrefuse({UNSHARE})\nsettings = {settings!r}\n{_OPEN}")
        assert text.startswith("refused: tier 'zygote' cannot be had here: ")
        assert "unshare" in text
        assert "landlock" not in text


def test_mounts_that_are_refused_are_found_by_the_probe() -> None:
    """As on systems that grant the namespace and deny `mount` in it."""
    text = said(f"{_REFUSE}\nrefuse({MOUNT})\nsettings = {{'minimum': 'zygote'}}\n{_OPEN}")
    assert "mount" in text
    assert text.startswith("refused:")


def test_with_neither_a_pool_refuses_and_names_both() -> None:
    text = said(f"{_REFUSE}\nrefuse({UNSHARE}, {MOUNT}, {LANDLOCK})\nsettings = {{}}\n{_OPEN}")
    assert text.startswith("refused:")
    assert "unshare" in text
    assert "no Landlock" in text


def test_without_landlock_namespaces_alone_hold() -> None:
    assert said(f"{_REFUSE}\nrefuse({LANDLOCK})\nsettings = {{}}\n{_OPEN}") == "zygote 42 zygote"


def in_a_machine_with(change: str) -> list[str]:
    """A Python that starts after root has changed the mounts that it sees."""
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", f'{change} && exec "$0" "$@"', sys.executable]


_GREEDY = """
from agentrl.sandbox import Limits, SyncSandboxPool
with SyncSandboxPool(workers=1) as pool:
    child = "    if os.fork() == 0: x = b'x' * (80 << 20); time.sleep(50)\\n"
    code = f"import os, time\\nfor _ in range(3):\\n{child}time.sleep(50)"
    print(pool.tier, pool.features["proc"], pool.run(code, limits=Limits(wall_s=40, memory_bytes=100 << 20)).status)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare(1)")
def test_with_parts_of_proc_covered_runs_are_watched_all_the_same() -> None:
    """As in containers that cover parts of /proc: the kernel then refuses a new one."""
    assert said(_GREEDY, in_a_machine_with("mount -t tmpfs none /proc/sys")) == "zygote False memory"


@needs_both
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare(1)")
def test_without_any_proc() -> None:
    with SyncSandboxPool(tier="landlock", workers=1) as ours:
        assert said(f"settings = {{}}\n{_OPEN}", in_a_machine_with("umount -l /proc")) == "landlock 42 landlock"
        assert ours.run("print(1)").ok, "the folders of those whom it cannot see are theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_root(tier: str) -> None:
    python = Path(shutil.which("python3", path="/usr/bin:/bin") or sys.executable)
    drop = "import os\nos.setgroups([])\nos.setresgid(4242, 4242, 4242)\nos.setresuid(4242, 4242, 4242)\n"
    new_enough = "import sys, agentrl\nprint(sys.version_info >= (3, 11))"
    if (
        subprocess.run(
            [python, "-c", drop + new_enough], env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True
        ).stdout
        != b"True\n"
    ):
        pytest.skip(f"{python} is too old, or another user may not read {REPOSITORY}")
    assert said(f"{drop}settings = {{'tier': {tier!r}}}\n{_OPEN}", [str(python)]) == f"{tier} 42 {tier}"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare(1)")
def test_in_a_network_without_routes() -> None:
    assert said(f"settings = {{}}\n{_OPEN}", ["unshare", "-rn", sys.executable]) == "zygote 42 zygote"


def test_with_an_interpreter_below_a_folder_that_is_another_one_inside() -> None:
    folder = tempfile.mkdtemp(dir="/var/tmp")
    try:
        venv.create(folder, symlinks=True)
        assert said(f"settings = {{'tier': 'zygote'}}\n{_OPEN}", [f"{folder}/bin/python"]) == "zygote 42 zygote"
    finally:
        shutil.rmtree(folder)


def test_probe_names_each_tier_and_what_a_pool_takes(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["probe"])
    text = capsys.readouterr().out
    assert all(tier in text for tier in ("zygote", "bwrap", "landlock"))
    assert code == 0
    assert "A pool without a `tier` takes" in text
    main(["probe", "--json"])
    tiers = [each["tier"] for each in json.loads(capsys.readouterr().out)]
    assert tiers == ["zygote", "bwrap", "landlock", *CONTAINER_TIERS]


def test_command_passes_output_and_exit_code_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "p.py"
    program.write_text("import sys\nprint(sys.argv[1:], sys.stdin.read())\nprint('e', file=sys.stderr)\nsys.exit(4)")
    (tmp_path / "in").write_text("given")
    assert main(["run", "--stdin", str(tmp_path / "in"), str(program), "-x", "y"]) == 4
    assert capfd.readouterr() == ("['-x', 'y'] given\n", "e\n")


@pytest.mark.parametrize(
    ("code", "exit_code", "word"),
    [("while True: pass", 124, "timeout"), ("import ctypes\nctypes.memset(0, 1, 1)", 128 + 11, "SIGSEGV")],
)
def test_command_says_what_stopped_a_program(
    code: str, exit_code: int, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "p.py"
    program.write_text(code)
    assert main(["run", "--wall-s", "3", str(program)]) == exit_code
    assert word in capsys.readouterr().err


def test_command_without_its_file_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "/no/such/file.py"]) == 125
    assert "/no/such/file.py" in capsys.readouterr().err


def test_no_walls_have_to_be_asked_for_by_name() -> None:
    with pytest.raises(ValueError, match="i_know_this_is_unsafe"):
        SandboxPool(tier="none")
    with pytest.raises(ValueError, match="there are: "):
        SandboxPool(tier="magic")
    with pytest.raises(ValueError, match="weaker"):
        SandboxPool(tier="landlock", minimum="zygote")
    assert issubclass(TierUnavailable, Exception)


def test_where_calls_cannot_be_asked_about_sessions_go_on_and_are_not_forked() -> None:
    """As inside some containers, whose own supervisor is the only one that may be asked."""
    text = said(f"{_REFUSE}\nrefuse({SECCOMP})\n{_FORK}")
    assert text == "42\n the session could not be forked: the kernel does not let it be forked"
