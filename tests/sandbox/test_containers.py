"""Tiers whose workers live in containers, on every engine that this machine has, and what is said where it has none."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentrl.sandbox import Limits, SandboxPool, SyncSandboxPool, TierUnavailable, choice
from agentrl.sandbox.choice import tiers_for
from agentrl.sandbox.containers import CONTAINER_TIERS, caller, engine, owner
from agentrl.sandbox.containers.gvisor import find_runsc
from agentrl.sandbox.jail import landlock
from agentrl.sandbox.starts import PREFIX, Place
from tests.sandbox import images
from tests.sandbox.attack import LIMITS, REPOSITORY, Attack
from tests.sandbox.conftest import begun
from tests.sandbox.test_attacks import FOREIGN, OWN, hold, named

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
_HOARD = "import time\nx = [bytearray(b'x' * (1 << 20)) for _ in range(300)]\ntime.sleep(9)"
_THREADS = """
import threading, time
for _ in range(30):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""
PLAIN = ("run", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
_AFTER_S = 30.0  # the engine's own time to remove a container, on a busy machine


@pytest.fixture(scope="module", params=CONTAINER_TIERS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(tier, image); gVisor alone takes none."""
    name = request.param
    try:
        find_runsc() if name == "gvisor" else engine.find(name)
        image = "" if name == "gvisor" else images.image_for(name, tmp_path_factory.mktemp("image"))
        if image:
            subprocess.run([name, *PLAIN, "--rm", image, "true"], check=True, capture_output=True, timeout=60)
    except TierUnavailable as error:
        pytest.skip(str(error))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{name} cannot run an image here: {error.stderr.decode(errors='replace')}")
    yield name, image
    if image:
        images.forget(name)


@pytest.fixture
def contained(found: tuple[str, str]) -> tuple[str, str]:
    """(engine, image)."""
    if not found[1]:
        pytest.skip("gVisor alone has no engine and no images")
    return found


@pytest.fixture(scope="module")
def pool(found: tuple[str, str]) -> Iterator[SyncSandboxPool]:
    tier, image = found
    with SyncSandboxPool(tier=tier, image=image, workers=1, running=2, limits=LIMITS) as opened:
        yield opened


def of(tier: str, owner_pid: int) -> set[str]:
    """Containers of that process; of gVisor, its processes."""
    prefix = f"{owner.FOLDER if tier == 'gvisor' else PREFIX}{owner_pid}-"
    if tier != "gvisor":
        return set(engine.containers(engine.find(tier), prefix))
    there = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(prefix in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                there.add(f"{process.pid} {process.cmdline()[0]}")
    return there


def left_of(tier: str, owner_pid: int, but: Set[str] = frozenset()) -> set[str]:
    deadline = time.monotonic() + _AFTER_S
    while (left := of(tier, owner_pid) - but) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_a_run_a_call_a_command_and_a_session(pool: SyncSandboxPool) -> None:
    run = pool.run("open('out', 'w').write(input())\nprint(open('out').read(), 6 * 7)", stdin="given")
    assert (run.status, run.stdout, run.tier) == ("ok", "given 42\n", pool.tier)
    assert pool.call("def f(x):\n    return [x, 2 * x]", "f", [3]).value == [3, 6]
    with pool.session() as session:
        session.run("x = 20")
        assert session.run("x + 1").stdout == "21\n"
    if pool.features["inside"] != "landlock":
        assert pool.execute(["sh", "-c", "echo $((3 * 4))"]).stdout == "12\n"


def test_files_come_back_or_it_is_said_that_they_do_not(pool: SyncSandboxPool) -> None:
    if pool.tier == "gvisor":
        with pytest.raises(ValueError, match="brings no files back"):
            pool.run("1", collect_files=["out"])
    else:
        assert pool.run("open('out', 'w').write('x')", collect_files=["out"]).files == {"out": b"x"}


def test_features_say_what_stands_inside(pool: SyncSandboxPool, found: tuple[str, str]) -> None:
    assert pool.features["inside"] in ("zygote", "landlock", "guest")
    assert pool.features.get("image", "") == found[1]
    assert str(pool.features["engine"]).lower().startswith(found[0])


def test_the_container_is_closed_on_all_sides(pool: SyncSandboxPool, contained: tuple[str, str]) -> None:
    """What the engine was asked for, as it tells it itself: the walls of runs are tested by attacks on them."""
    form = "{{.HostConfig.NetworkMode}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.PidsLimit}} {{.HostConfig.Memory}}"
    (name,) = of(contained[0], os.getpid())
    _, said, _ = engine.ask(contained[0], "inspect", "--format", form, name)
    network, read_only, processes, memory = said.split()
    assert (network, read_only) == ("none", "true")
    assert 0 < int(processes) < 1000
    assert 0 < int(memory) < 8 << 30
    status = Path(f"/proc/{pool.pool.workers[0].pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_no_file_network_or_process_of_the_machine_is_seen(pool: SyncSandboxPool, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    code = f"""
import os, socket
def tried(what):
    try:
        return what() and "reached"
    except OSError as error:
        return "refused"
print(tried(lambda: open({str(tmp_path / "secret")!r}).read()))
print(tried(lambda: open({str(REPOSITORY / "pyproject.toml")!r}).read()))
print(tried(lambda: os.kill({os.getpid()}, 0) is None))
print(tried(lambda: socket.create_connection(("1.1.1.1", 53), 1)))
print(tried(lambda: os.listdir("/control")))
"""
    assert pool.run(code).stdout.split() == ["refused"] * 5


def test_a_container_holds_what_landlock_leaves_open(
    contained: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock")
    pool = SyncSandboxPool(tier=contained[0], image=contained[1], workers=1)
    place = choice.place_for

    def weaker(*arguments: Any) -> Place:
        made = place(*arguments)
        made.walls = ("landlock",)
        return made

    monkeypatch.setattr("agentrl.sandbox.pool.place_for", weaker)
    with pool:
        assert pool.features["inside"] == "landlock"
        seen = pool.run(f"import os\nprint(os.path.exists({str(REPOSITORY)!r}), os.path.exists('/jail/boot.py'))")
        assert seen.stdout == "False True\n"
        assert pool.run("import os\nos.fork()").status == "error"


@pytest.mark.parametrize(
    ("code", "limits", "status"),
    [
        ("while True: pass", {"wall_s": 0.5}, "timeout"),
        ("x = b'x' * (200 << 20)", {"address_bytes": 100 << 20}, "memory"),
        (_HOARD, {"memory_bytes": 100 << 20}, "memory"),
        (_THREADS, {"processes": 8}, "error"),
        ("while True: print('x' * 9999)", {}, "output_limit"),
    ],
    ids=["time", "memory of one process", "memory of a run", "processes", "output"],
)
def test_limits_hold(pool: SyncSandboxPool, code: str, limits: dict[str, float], status: str) -> None:
    assert pool.run(code, limits=replace(LIMITS, **limits)).status == status


@pytest.mark.usefixtures("contained")
def test_limits_larger_than_the_container_are_refused_at_once(pool: SyncSandboxPool) -> None:
    with pytest.raises(ValueError, match="give the pool itself"):
        pool.run("1", limits=Limits(memory_bytes=1 << 40))


@pytest.mark.slow
@pytest.mark.usefixtures("bait")
@pytest.mark.parametrize("attack", named(FOREIGN) or [pytest.param(None, marks=pytest.mark.skip("no attacks given"))])
def test_given_program_comes_to_what_it_should(pool: SyncSandboxPool, attack: Attack) -> None:
    hold(pool, attack)


@pytest.mark.slow
@pytest.mark.usefixtures("bait")
@pytest.mark.parametrize("attack", named(OWN))
def test_own_program_comes_to_what_it_should(pool: SyncSandboxPool, attack: Attack) -> None:
    hold(pool, attack)


def test_a_killed_worker_ends_its_runs_and_is_replaced(found: tuple[str, str]) -> None:
    async def killed(pool: SandboxPool) -> tuple[str, str]:
        worker = pool.workers[0]
        task = asyncio.create_task(pool.run(SLEEP, limits=replace(LIMITS, wall_s=100)))
        await begun(pool)
        os.kill(worker.pid, signal.SIGKILL)
        first = (await asyncio.wait_for(task, 60)).status
        while worker.alive:  # noqa: ASYNC110  (heard on another socket than the run's end)
            await asyncio.sleep(0.01)
        return first, (await pool.run("print(2)")).stdout

    with SyncSandboxPool(tier=found[0], image=found[1], workers=1, limits=LIMITS) as pool:
        if os.geteuid():
            pytest.skip("only root may kill a process of another user")
        assert pool.wait_for(killed(pool.pool)) == ("infra_error", "2\n")


def test_closing_removes_the_container_and_its_command(found: tuple[str, str]) -> None:
    others, before = of(found[0], os.getpid()), set(psutil.Process().children(recursive=True))
    with SyncSandboxPool(tier=found[0], image=found[1], workers=2):
        assert len(of(found[0], os.getpid()) - others) >= 2
    assert of(found[0], os.getpid()) - others == set()
    assert [each for each in set(psutil.Process().children(recursive=True)) - before if each.is_running()] == []


def test_a_killed_caller_leaves_no_container(found: tuple[str, str]) -> None:
    script = f"""
import asyncio, sys
from agentrl.sandbox import SandboxPool
async def main():
    async with SandboxPool(tier={found[0]!r}, image={found[1]!r}, workers=2) as pool:
        async with pool.session() as session:
            await session.run("1")
            runs = [asyncio.create_task(pool.run({SLEEP!r})) for _ in range(3)]
            await session.run("2")
            print("running", flush=True)
            await asyncio.gather(*runs)
asyncio.run(main())
"""
    caller = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE
    )
    try:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"running\n"
        assert len(of(found[0], caller.pid)) >= 2
        caller.kill()
        assert left_of(found[0], caller.pid) == set()
    finally:
        caller.kill()
        caller.wait()
        caller.stdout.close()


def test_what_a_dead_owner_left_is_swept_and_nobody_elses(contained: tuple[str, str]) -> None:
    """Containers that do not end by themselves, which ours do: of a process that is gone, and of this one."""
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    theirs = f"{PREFIX}{owner.mark(dead.pid)}-0a"
    dead.wait()
    ours = f"{PREFIX}{owner.mark()}-0b"
    known = engine.find(contained[0])
    for name in (theirs, ours):
        code, _, error = engine.ask(
            contained[0], *PLAIN, "--detach", "--rm", f"--name={name}", contained[1], "sleep", "600"
        )
        assert code == 0, error
    try:
        assert owner.sweep(known) == [theirs]
        assert engine.containers(known, theirs) == []
        assert engine.containers(known, ours) == [ours]
    finally:
        engine.remove_container(known, ours)


def test_an_image_that_is_not_there_is_refused_and_not_fetched(contained: tuple[str, str]) -> None:
    with pytest.raises(TierUnavailable, match=f"{contained[0]} pull no/such:image"):
        SyncSandboxPool(tier=contained[0], image="no/such:image", workers=1).__enter__()
    assert engine.ask(contained[0], "image", "inspect", "no/such:image")[0] != 0


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
DENIED = "permission denied while trying to connect to the Docker daemon socket"


@pytest.mark.parametrize(
    ("tier", "script", "wanted"),
    [
        ("docker", None, "there is no command 'docker'.*apt-get install docker.io"),
        ("podman", None, "there is no command 'podman'.*apt-get install podman"),
        ("gvisor", None, "there is no command 'runsc'.*apt-get install runsc"),
        ("docker", f"echo '{DOWN}' >&2; exit 1", "systemctl start docker"),
        ("docker", f"echo '{DENIED}' >&2; exit 1", "group `docker`, which is as good as being root"),
        ("docker", 'case "$1" in context) echo ssh://far;; esac', "daemon of this machine"),
        ("podman", "echo 'cannot find UID/GID for user' >&2; exit 125", "/etc/subuid"),
        ("docker", 'case "$1" in version) echo 28.0;; image) echo "No such image" >&2; exit 1;; esac', "docker pull"),
        (
            "docker",
            'case "$1" in version) echo 28.0;; run) echo "Error: no cgroups" >&2; exit 125;; esac',
            "Error: no cgroups",
        ),
    ],
)
def test_what_lacks_is_said_with_what_to_do(
    tier: str, script: str | None, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines that answer as real ones do on machines that have less."""
    if script is not None:
        fake(tmp_path, tier, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    with pytest.raises(TierUnavailable, match=wanted):
        SyncSandboxPool(tier=tier, workers=1).__enter__()


def test_containers_are_chosen_only_when_they_are_asked_for() -> None:
    assert tiers_for(None, "landlock") == ("zygote", "bwrap", "landlock")
    assert tiers_for(None, "zygote") == ("zygote",)
    assert tiers_for(None, "docker") == ("gvisor", "docker", "podman")
    assert tiers_for(None, "gvisor") == ("gvisor",)
    assert tiers_for("podman", "landlock") == ("podman",)


def test_only_processes_of_here_that_are_gone_are_dead_owners() -> None:
    pid, began, here = owner.mark().split("-")
    for prefix in (PREFIX, owner.FOLDER):
        assert not owner.is_left(f"{prefix}{pid}-{began}-{here}-ab")
        assert owner.is_left(f"{prefix}{pid}-{int(began) + 1}-{here}-ab")
        assert not owner.is_left(f"{prefix}{pid}-{int(began) + 1}-0123abcd-ab")
        assert not owner.is_left(f"{prefix}somebody-elses")


def test_a_folder_that_a_dead_owner_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    left, other = tmp_path / f"{owner.FOLDER}{owner.mark(dead.pid)}-a", tmp_path / f"{owner.FOLDER}1-2-3-b"
    dead.wait()
    for folder in (left, other):
        (folder / "control").mkdir(parents=True)
    assert {tmp_path / owner.new_folder(), other} == set(tmp_path.iterdir())


async def test_only_its_user_may_call_whatever_the_umask() -> None:
    modes = []

    class Never(caller.Caller):
        def command(self, folder: str) -> list[str]:
            modes.append(os.stat(f"{folder}/control/socket").st_mode & 0o777)
            return ["false"]

        def explain(self, said: str) -> str:
            return "it does not call"

        def destroy(self) -> None:
            """There is nothing."""

    before = os.umask(0)
    try:
        never = Never("never")
        with pytest.raises(TierUnavailable, match="does not call"):
            await never.start()
    finally:
        os.umask(before)
    never.end()
    await never.gone()
    assert modes == [0o600]
