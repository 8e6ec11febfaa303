"""Hostile programs against every tier that this machine has, and against none, where they must succeed.

`AGENTRL_ATTACKS` names a folder of further programs; it stands beside the repository by default.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os

import pytest

from agentrl.sandbox import Limits, SyncSandboxPool
from tests.sandbox.asking import ASKING
from tests.sandbox.attack import ENDS, GIVEN, LIMITS, Attack, complaints, held, left, read
from tests.sandbox.doors import DOORS
from tests.sandbox.grading import GRADED
from tests.sandbox.hoarding import HOARDING
from tests.sandbox.loading import LOADING
from tests.sandbox.reaching import REACHING

pytestmark = pytest.mark.usefixtures("bait")

FOREIGN = read(GIVEN) if GIVEN.is_dir() else []
OWN = [*REACHING, *ASKING, *DOORS, *LOADING, *HOARDING, *GRADED]
# On `landlock` a run is one process, and files are not counted.
REFUSED = {"daemonise": {"status": ["error"], "stdout_contains": ["Operation not permitted"]}}
HANGS = {"thread_never_joins", "s_right_then_hang", "right_then_hangs"}


def named(attacks: list[Attack]) -> list[object]:
    return [pytest.param(attack, id=attack.name) for attack in attacks]


@pytest.mark.parametrize("attack", named(FOREIGN) or [pytest.param(None, marks=pytest.mark.skip(f"no {GIVEN}"))])
def test_given_program_comes_to_what_it_should(pool: SyncSandboxPool, attack: Attack) -> None:
    hold(pool, attack)


@pytest.mark.parametrize("attack", named(OWN))
def test_own_program_comes_to_what_it_should(pool: SyncSandboxPool, attack: Attack) -> None:
    hold(pool, attack)


def hold(pool: SyncSandboxPool, attack: Attack) -> None:
    expect = dict(attack.expect)
    walls = pool.features.get("inside", pool.tier)
    if walls == "landlock":
        expect |= REFUSED.get(attack.name, {})
    if walls not in expect.get("limited_on", [walls]):
        pytest.skip(f"{walls} says that it does not limit this")
    if pool.tier == "gvisor" and "collect" in expect:
        pytest.skip("gvisor brings no files back")
    pool.pool.limits = LIMITS if pool.tier == "gvisor" else impatient(attack)
    for _ in range(3):
        found = pool.wait_for(complaints(pool.pool, dataclasses.replace(attack, expect=expect)))
        if not any("before its walls stood" in each for each in found):  # a busy machine took the short time
            break
    assert found == []


def impatient(attack: Attack) -> Limits:
    """What is expected to hang need not hang for ten seconds, nor what may."""
    allowed = attack.expect["status"]
    hangs = ("timeout" in allowed and "ok" not in allowed) or attack.name in HANGS
    if hangs:
        return dataclasses.replace(LIMITS, wall_s=1.0, cpu_s=0.5)
    return dataclasses.replace(LIMITS, wall_s=3) if allowed == ENDS and attack.expect["kind"] == "run" else LIMITS


@pytest.mark.parametrize("attack", named([each for each in [*REACHING, *ASKING, *DOORS] if "control" in each.expect]))
def test_it_succeeds_where_nothing_holds_it(open_pool: SyncSandboxPool, attack: Attack) -> None:
    if attack.expect["control"] == "root" and os.geteuid() != 0:
        pytest.skip("succeeds for root alone")
    results = [open_pool.run(attack.code) for _ in range(attack.expect.get("repeat", 1))]
    assert "ESCAPED" in results[-1].stdout, results[-1]


LEAVES = """
import ctypes, os
call = ctypes.CDLL(None, use_errno=True).syscall
open('/tmp/left-for-the-scan', 'w').close()
print(call(29, 0, 4096, 0o1600))
"""


def test_the_scan_for_what_is_left_finds_it(open_pool: SyncSandboxPool) -> None:
    before = held(open_pool.pool)
    segment = int(open_pool.run(LEAVES).stdout)
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        found = open_pool.wait_for(left(open_pool.pool, before, within=0))
    finally:
        os.close(fd)
        os.unlink("/tmp/left-for-the-scan")
        ctypes.CDLL(None).shmctl(segment, 0, None)
    assert [text.split(":")[0] for text in found] == [
        f"left over, descriptors of {os.getpid()}",
        "left over, IPC objects",
        "left over, files",
    ]
