"""Hostile programs against every tier that this machine has, and against none, where they must succeed.

`AGENTRL_ATTACKS` names a folder of further programs; it stands beside the repository by default.
"""

from __future__ import annotations

import dataclasses
import os

import pytest

from agentrl.sandbox import Limits, SyncSandboxPool
from tests.sandbox.asking import ASKING
from tests.sandbox.attack import GIVEN, LIMITS, Attack, complaints, read
from tests.sandbox.grading import GRADED
from tests.sandbox.loading import LOADING
from tests.sandbox.reaching import REACHING

pytestmark = pytest.mark.usefixtures("bait")

FOREIGN = read(GIVEN) if GIVEN.is_dir() else []
OWN = [*REACHING, *ASKING, *LOADING, *GRADED]
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
    assert pool.wait_for(complaints(pool.pool, dataclasses.replace(attack, expect=expect))) == []


def impatient(attack: Attack) -> Limits:
    """What is expected to hang need not hang for three seconds."""
    allowed = attack.expect["status"]
    hangs = ("timeout" in allowed and "ok" not in allowed) or attack.name in HANGS
    return dataclasses.replace(LIMITS, wall_s=0.6, cpu_s=0.5) if hangs else LIMITS


@pytest.mark.parametrize("attack", named([each for each in [*REACHING, *ASKING] if "control" in each.expect]))
def test_it_succeeds_where_nothing_holds_it(open_pool: SyncSandboxPool, attack: Attack) -> None:
    if attack.expect["control"] == "root" and os.geteuid() != 0:
        pytest.skip("succeeds for root alone")
    results = [open_pool.run(attack.code) for _ in range(attack.expect.get("repeat", 1))]
    assert "ESCAPED" in results[-1].stdout, results[-1]
